import Kernels
import TestSupport
import Testing

@Suite struct BitPackingTests {
  @Test(arguments: 1...8)
  func unpackingReversesPacking(bits: Int) {
    var random = SplitMix64(seed: UInt64(bits))
    for count in Array(0...70) + [1000, 1027] {
      let codes = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) & UInt8((1 << bits) - 1) }
      var bytes = [UInt8](repeating: 0xff, count: packedByteCount(codes: count, bits: bits))
      var target = bytes.mutableSpan
      packBits(codes.span, bits: bits, into: &target)
      var back = [UInt8](repeating: 0xff, count: count)
      var codeSpan = back.mutableSpan
      unpackBits(bytes.span, bits: bits, into: &codeSpan)
      #expect(back == codes, "\(count) codes")
      // The stream as the specification words it.
      for bit in 0..<(bytes.count * 8) {
        let expected = bit < bits * count ? (codes[bit / bits] >> UInt8(bit % bits)) & 1 : 0
        #expect((bytes[bit / 8] >> UInt8(bit % 8)) & 1 == expected, "\(count) codes, stream bit \(bit)")
      }
    }
  }

  @Test func theStreamIsLeastSignificantBitFirst() {
    func packed(_ codes: [UInt8], bits: Int) -> [UInt8] {
      var bytes = [UInt8](repeating: 0, count: packedByteCount(codes: codes.count, bits: bits))
      var span = bytes.mutableSpan
      packBits(codes.span, bits: bits, into: &span)
      return bytes
    }
    #expect(packed([1, 2, 3], bits: 4) == [0x21, 0x03])
    #expect(packed([1, 2, 3, 4], bits: 3) == [0b11_010_001, 0b1000])
  }
}

@Suite struct AffineCodesTests {
  /// Groups of a run that does not end with a whole row, in both stored types, against the plain twin.
  @Test(arguments: [(ElementType.bf16, 70, 32), (.bf16, 16, 16), (.f32, 33, 33), (.f32, 100, 64)])
  func groupsOfStoredWeightsHaveTheCodesOfTheirRanges(type: ElementType, rowLength: Int, groupLength: Int) {
    var random = SplitMix64(seed: 9)
    let (bytes, values) = random.storedWeights(3 * rowLength + 8, as: type)
    let groups = GroupRuns(rowLength: rowLength, groupLength: groupLength, column: 0, count: values.count)
    var magnitudes: [Float] = []
    largestMagnitudes(bytes.span.bytes, as: type, of: groups, into: &magnitudes)
    #expect(magnitudes == groups.map { values[$0].map(abs).max() ?? 0 })
    let ranges = magnitudes.enumerated().map { index, largest in
      // Every other range is clipped.
      AffineRange(scale: largest / (index % 2 == 0 ? 127 : 300), zeroPoint: 128, highestCode: 255)
    }
    var codes = [UInt8](repeating: 99, count: values.count)
    var span = codes.mutableSpan
    encodeAffine(
      bytes.span.bytes, as: type, groups: groups, ranges: ranges.span, magnitudes: magnitudes.span, into: &span)
    #expect(codes == zip(groups, ranges).flatMap { group, range in values[group].map { range.code(of: $0) } })
    let codebook = Codebook(levels: [-1, -0.7, -0.2, 0, 0.1, 0.101, 0.9, 1])
    let scales = magnitudes.enumerated().map { $1 * ($0 % 2 == 0 ? 1 : 0.6) }
    var target = codes.mutableSpan
    codebook.encode(
      bytes.span.bytes, as: type, groups: groups, scales: scales.span, magnitudes: magnitudes.span, into: &target)
    #expect(
      codes
        == zip(groups, scales).flatMap { group, scale in values[group].map { codebook.code(nearest: $0 * (1 / scale)) }
        })
  }

  @Test(arguments: [(0.0013, 0.0), (0.01, 7), (0.02, 8.37), (1e-40, 8), (1e-38, 3), (0, 8), (1e37, 2), (0.5, -3)])
  func theLoopEqualsItsPlainTwin(scale: Double, zeroPoint: Double) {
    var random = SplitMix64(seed: 3)
    let range = AffineRange(scale: Float(scale), zeroPoint: Float(zeroPoint), highestCode: 15)
    for count in [0, 1, 15, 16, 31, 64, 100] {
      let values = random.weights(count, scale: max(Float(scale), .leastNonzeroMagnitude * 700) * 6)
      for largest in [Float.infinity, absoluteMaximum(values.span)] {
        var codes = [UInt8](repeating: 99, count: count)
        var span = codes.mutableSpan
        encodeAffine(
          values.span.bytes, as: .f32, groups: GroupRuns(single: count), ranges: [range].span,
          magnitudes: [largest].span, into: &span)
        #expect(codes == values.map { range.code(of: $0) })
        var decoded = [Float](repeating: 99, count: count)
        var valueSpan = decoded.mutableSpan
        decodeAffine(codes.span, range, into: &valueSpan)
        #expect(decoded == codes.map { range.value(of: $0) })
      }
    }
  }

  /// 16 uniform levels of −1…1 (a worked example of the literature): 0.5678 becomes the thirteenth level, 0.6.
  @Test func aValueTakesTheNearestUniformLevel() {
    let range = AffineRange(scale: 2 / 15, zeroPoint: 7.5, highestCode: 15)
    #expect(range.code(of: 0.5678) == 12)
    #expect(abs(range.value(of: 12) - 0.6) < 1e-6)
    #expect(abs(abs(range.value(of: 12) - 0.5678) - 0.0322) < 1e-6)
  }

  @Test func theFitIsTheErrorOfTheCodes() {
    var random = SplitMix64(seed: 4)
    for zeroPoint: Float in [8, 7.4] {
      for count in [3, 16, 77, 3000] {
        let values = random.weights(count)
        let range = AffineRange(scale: 0.004, zeroPoint: zeroPoint, highestCode: 15)
        var fit = AffineFit()
        fit.add(values.span, range)
        var (error, product, squares) = (0.0, 0.0, 0.0)
        for value in values {
          let step = Double(Float(range.code(of: value)) - zeroPoint)
          error += (Double(value) - step * Double(range.scale)) * (Double(value) - step * Double(range.scale))
          product += Double(value) * step
          squares += step * step
        }
        #expect(abs(fit.squaredError - error) < 1e-4 * error)
        #expect(abs(fit.product - product) < 1e-4 * abs(product))
        #expect(abs(fit.codeSquares - squares) < 1e-4 * squares)
      }
    }
  }
}

@Suite struct CodebookTests {
  @Test func theTableEqualsTheComparison() {
    var random = SplitMix64(seed: 5)
    let codebook = Codebook(levels: [-1, -0.7, -0.2, 0, 0.1, 0.101, 0.9, 1])
    // Values on and just beside every midpoint, and ordinary ones.
    var values = random.weights(5000, scale: 0.4)
    let levels = codebook.levels.sorted()
    for (low, high) in zip(levels, levels.dropFirst()) {
      let middle = (low + high) / 2
      values += [middle, middle.nextUp, middle.nextDown, low, high]
    }
    values += [5, -5, 1, -1, 0, -0.0]
    for scale: Float in [1, 0.3, 7] {
      var codes = [UInt8](repeating: 99, count: values.count)
      var span = codes.mutableSpan
      codebook.encode(
        values.span.bytes, as: .f32, groups: GroupRuns(single: values.count), scales: [scale].span,
        magnitudes: [Float.infinity].span, into: &span)
      #expect(codes == values.map { codebook.code(nearest: $0 * (1 / scale)) })
    }
  }

  @Test func manyLevelsAreComparedOneByOne() {
    let codebook = Codebook(levels: (0..<256).map { Float($0 - 128) / 128 })
    var random = SplitMix64(seed: 6)
    let values = random.weights(100, scale: 0.4)
    var codes = [UInt8](repeating: 99, count: values.count)
    var span = codes.mutableSpan
    codebook.encode(
      values.span.bytes, as: .f32, groups: GroupRuns(single: values.count), scales: [1].span,
      magnitudes: [Float.infinity].span, into: &span)
    #expect(codes == values.map { codebook.code(nearest: $0) })
  }

  @Test func aMidpointTakesTheLowerLevel() {
    let codebook = Codebook(levels: [-1, 0, 1])
    #expect([-0.5, 0.5, Float(0.5).nextUp, -2, 2].map { codebook.code(nearest: $0) } == [0, 1, 2, 0, 2])
  }
}
