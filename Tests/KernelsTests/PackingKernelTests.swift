import Kernels
import TestSupport
import Testing

@Suite struct PackingKernelTests {
  /// Words of codes that are joined eight at a time reach beyond the codes, but not beyond their stream.
  @Test(arguments: 1...8)
  func packingStaysWithinTheStream(bits: Int) {
    for count in [8, 13, 16, 40, 64, 71] {
      let codes = [UInt8](repeating: UInt8((1 << bits) - 1), count: count)
      let length = packedByteCount(codes: count, bits: bits)
      var bytes = [UInt8](repeating: 0xA5, count: length + 16)
      var target = bytes.mutableSpan
      packBits(codes.span, bits: bits, into: &target)
      #expect(bytes[length...].allSatisfy { $0 == 0xA5 })
      #expect((0..<count * bits).allSatisfy { bytes[$0 / 8] >> UInt8($0 % 8) & 1 == 1 })
    }
  }

  /// Lines stored as columns, in any order, by several threads; the same memory again for a smaller matrix.
  @Test func aMatrixOfWordsIsTheTransposeOfItsLines() {
    let words = WordMatrix(capacity: 50 * 37)
    for (rows, columns, height) in [(50, 37, 8), (48, 32, 16), (33, 29, 27), (17, 16, 5), (1, 3, 1), (3, 1, 1)] {
      words.use(rows: rows, columns: columns)
      @Sendable func word(_ line: Int, _ row: Int) -> [UInt8] { [UInt8(line), UInt8(row), 7, UInt8(rows)] }
      runTiles(count: (columns + height - 1) / height, workers: 3) { tile in
        let lines = tile * height..<min((tile + 1) * height, columns)
        let bytes = lines.flatMap { line in (0..<rows).flatMap { word(line, $0) } }
        words.store(bytes.span, count: lines.count, at: lines.lowerBound)
      }
      var bytes: [UInt8] = []
      words.copyBytes(0..<words.byteCount, into: &bytes)
      #expect(bytes == (0..<rows).flatMap { row in (0..<columns).flatMap { word($0, row) } })
      words.copyBytes(4..<words.byteCount, into: &bytes)
      #expect(
        bytes.prefix(words.byteCount - 4)
          == (0..<rows).flatMap { row in
            (0..<columns).flatMap { word($0, row) }
          }.dropFirst(4))
    }
  }

  @Test func nibblesOfTwoPlaces() {
    let codes = (0..<96).map { UInt8($0 * 7 & 31) }
    var bytes = [UInt8](repeating: 0xEE, count: 40)
    var target = bytes.mutableSpan
    packNibbles(codes.span, low: 3, high: 60, count: 32, into: &target, at: 5)
    #expect(Array(bytes[5..<37]) == (0..<32).map { codes[3 + $0] & 15 | codes[60 + $0] << 4 })
    #expect(bytes[..<5].allSatisfy { $0 == 0xEE } && bytes[37...].allSatisfy { $0 == 0xEE })
  }

  @Test func signsOfBytes() {
    for count in [0, 1, 15, 16, 33] {
      let before = (0..<count).map { UInt8($0 * 37 & 255) }
      var after = before
      var target = after.mutableSpan
      invertHighestBits(&target)
      #expect(after == before.map { $0 ^ 0x80 })
    }
  }

  /// Sixteen values at a time take the codes that each takes alone: ties, zeros of both signs, the smallest, the largest.
  @Test(arguments: [ElementType.f4, .f8E4M3, .f8E5M2, .f6E2M3, .f6E3M2])
  func smallFloatsSideBySide(type: ElementType) throws {
    let encoder = try #require(SmallFloatEncoder(type))
    let levels = (0..<128).map { SmallFloat(type)?.value(of: $0) ?? 0 }.filter(\.isFinite)
    var random = SplitMix64(seed: 8)
    var values: [Float] = levels
    for (level, next) in zip(levels, levels.dropFirst()) { values.append((level + next) / 2) }
    values += [0, -0.0, Float.greatestFiniteMagnitude]
    values += levels.map(\.nextUp)
    values += levels.map(\.nextDown)
    values += (0..<4000).map { _ in
      Float(bitPattern: UInt32(truncatingIfNeeded: random.next()) & 0x0fff_ffff | 0x3800_0000)
    }
    values += values.map { -$0 }
    for step: Float in [1, 0.25, 0.3, 1e-38, 0] {
      var codes = [UInt8](repeating: 0xEE, count: values.count)
      var target = codes.mutableSpan
      encoder.encode(values.span, 3..<values.count, step: step, into: &target)
      let expected = values.map { step > 0 ? encoder.code(of: $0 / step) : 0 }
      #expect(codes[..<3].allSatisfy { $0 == 0xEE })
      let wrong = (3..<values.count).first { codes[$0] != expected[$0] }
      #expect(wrong == nil, "\(type), step \(step): \(wrong.map { values[$0] } ?? 0)")
    }
  }

  /// Sixteen lanes are rounded to binary16 as each alone is.
  @Test func halvesSideBySide() {
    var random = SplitMix64(seed: 9)
    var patterns = (0..<(1 << 16)).map { _ in UInt32(truncatingIfNeeded: random.next()) }
    for edge: UInt32 in [0, 0x3300_0000, 0x387f_f000, 0x3880_0000, 0x477f_efff, 0x477f_f000, 0x4780_0000, 0x7f80_0000] {
      for offset: UInt32 in 0..<16 {
        let pattern: UInt32 = edge &+ offset &- 8
        patterns.append(pattern)
        patterns.append(pattern | 0x8000_0000)
      }
    }
    for start in stride(from: 0, to: patterns.count, by: 16) {
      var lanes = Floats()
      for lane in 0..<16 { lanes[lane] = Float(bitPattern: patterns[start + lane]) }
      let found = GroupLanes.halves(lanes)
      for lane in 0..<16 {
        let expected = Half.float(fromHalf: Half.half(from: lanes[lane]))
        #expect(expected.isNaN ? found[lane].isNaN : found[lane].bitPattern == expected.bitPattern, "\(lanes[lane])")
        if found[lane] != expected, !expected.isNaN { return }
      }
    }
  }
}
