/// The elements of a tensor by which is recorded what quantizing lost: all of a small tensor, eight of each run of R in a
/// larger one.
///
/// R is the largest power of two that a group holds, but 64 at least and 512 at most, so that a group that starts with a
/// run has its share. Of run j of the flattened tensor it is the eight elements from 8 · ⌊(2654435769 · j mod 2³²) · R/8 / 2³²⌋
/// on: a place that wanders from run to run (Fibonacci hashing), so that no column is always left out.
package struct ElementSample: Hashable, Sendable {
  /// Tensors up to this many elements are summed whole.
  package static let wholeCount = 1 << 18

  /// The binary logarithm of R; 3 where all elements are wanted.
  private let shift: Int

  /// - Parameters:
  ///   - count: elements of the tensor.
  ///   - groupLength: elements that share a scale.
  package init(of count: Int, groupLength: Int) {
    let length = min(max(groupLength, 64), 512)
    shift = count <= Self.wholeCount ? 3 : Int.bitWidth - 1 - length.leadingZeroBitCount
  }

  /// The first of the eight elements of a run.
  @inline(__always)
  private func start(ofRun run: Int) -> Int {
    let hash = UInt64(UInt32(truncatingIfNeeded: run) &* 2_654_435_769)
    return run &<< shift &+ Int((hash &<< UInt64(shift &- 3)) &>> 32) &* 8
  }

  /// Calls a body with the elements of a range that are in the sample, eight or fewer at a time.
  @inline(__always)
  fileprivate func forEach(in range: Range<Int>, _ body: (_ start: Int, _ end: Int) -> Void) {
    var run = range.lowerBound &>> shift
    while run &<< shift < range.upperBound {
      let own = start(ofRun: run)
      let (start, end) = (max(own, range.lowerBound), min(own &+ 8, range.upperBound))
      if start < end { body(start, end) }
      run &+= 1
    }
  }

  /// Whether an element is in the sample.
  package func contains(_ element: Int) -> Bool {
    let own = start(ofRun: element &>> shift)
    return element >= own && element < own + 8
  }
}

/// What codes stand for, in units of the scale.
package enum CodeLevels: Hashable, Sendable {
  /// code − zero point, which is the given one where none are stored.
  case affine(middle: Float)
  case levels([Float])
}

/// Sums over the sampled elements of a tensor, weights w and their reconstruction ŵ in float32, in double precision.
package struct LossSums: Hashable, Sendable {
  /// Σ w²
  package var source = 0.0
  /// Σ ŵ²
  package var decoded = 0.0
  /// Σ (w − ŵ)²
  package var error = 0.0

  package init(source: Double = 0, decoded: Double = 0, error: Double = 0) {
    self.source = source
    self.decoded = decoded
    self.error = error
  }

  package static func += (left: inout LossSums, right: LossSums) {
    left.source += right.source
    left.decoded += right.decoded
    left.error += right.error
  }

  /// ‖w − ŵ‖ / ‖w‖ over the sample; infinite where w is zero and ŵ is not.
  package var relativeError: Double {
    error == 0 ? 0 : source == 0 ? .infinity : (error / source).squareRoot()
  }

  /// Of weights and their reconstruction.
  /// - Parameters:
  ///   - values: the weights.
  ///   - decoded: as many, from element `first` of the tensor on.
  package init(_ values: Span<Float>, _ decoded: Span<Float>, first: Int, sample: ElementSample) {
    precondition(values.count >= decoded.count)
    let count = decoded.count
    var sums = LossLanes()
    values.withUnsafeBytes { values in
      decoded.withUnsafeBytes { decoded in
        guard let w = values.baseAddress, let x = decoded.baseAddress else { return }
        // Bounds: the sample gives elements of the range, whose first is at place 0.
        sample.forEach(in: first..<first + count) { start, end in
          if end &- start == 8 {
            sums.add(StoredFloat.eight(w, start &- first), StoredFloat.eight(x, start &- first))
          } else {
            for element in start..<end {
              sums.add(StoredFloat.value(w, element &- first), StoredFloat.value(x, element &- first))
            }
          }
        }
      }
    }
    self = sums.total
  }

  /// Of a tile of stored weights and the codes that were made of them.
  /// - Parameters:
  ///   - bytes: the weights, as many as the groups have elements, of a type that `isReadDirectly`.
  ///   - groups: those of the tile.
  ///   - scales: one for each group, as a reader sees it.
  ///   - zeroPoints: as many, or none.
  ///   - first: the tile's first element in the flattened tensor.
  package init(
    _ bytes: RawSpan, as type: ElementType, codes: Span<UInt8>, groups: GroupRuns, scales: Span<Float>,
    zeroPoints: Span<Float>, levels: CodeLevels, first: Int, sample: ElementSample
  ) {
    precondition(
      type.isReadDirectly && bytes.byteCount >= groups.count * type.bitWidth / 8 && codes.count >= groups.count)
    var sums = LossLanes()
    bytes.withUnsafeBytes { bytes in
      codes.withUnsafeBufferPointer { codes in
        guard let w = bytes.baseAddress, let q = codes.baseAddress else { return }
        // Bounds: groups are within 0..<groups.count, which the precondition covers, and the sample gives elements of them.
        switch (levels, type) {
        case (.affine(let middle), .bf16):
          sums.add(StoredBrain.self, w, q, groups, scales, first, sample) { group in
            AffineLevels(zeroPoint: zeroPoints.isEmpty ? middle : zeroPoints[group])
          }
        case (.affine(let middle), _):
          sums.add(StoredFloat.self, w, q, groups, scales, first, sample) { group in
            AffineLevels(zeroPoint: zeroPoints.isEmpty ? middle : zeroPoints[group])
          }
        case (.levels(let levels), _):
          // Codes of fewer bits than eight index fewer levels; the rest are never asked for.
          let table = levels + [Float](repeating: 0, count: 256 - levels.count)
          table.withUnsafeBufferPointer { table in
            guard let base = table.baseAddress else { return }
            if type == .bf16 {
              sums.add(StoredBrain.self, w, q, groups, scales, first, sample) { _ in TableLevels(table: base) }
            } else {
              sums.add(StoredFloat.self, w, q, groups, scales, first, sample) { _ in TableLevels(table: base) }
            }
          }
        }
      }
    }
    self = sums.total
  }
}

private protocol LaneLevels {
  func eight(_ codes: UnsafePointer<UInt8>, _ index: Int) -> SIMD8<Float>
  func value(_ code: UInt8) -> Float
}

private struct AffineLevels: LaneLevels {
  let zeroPoint: Float

  @inline(__always)
  func eight(_ codes: UnsafePointer<UInt8>, _ index: Int) -> SIMD8<Float> {
    let bytes = UnsafeRawPointer(codes).loadUnaligned(fromByteOffset: index, as: SIMD8<UInt8>.self)
    var result = SIMD8<Float>()
    for lane in 0..<8 { result[lane] = Float(bytes[lane]) }
    return result - zeroPoint
  }

  @inline(__always)
  func value(_ code: UInt8) -> Float { Float(code) - zeroPoint }
}

private struct TableLevels: LaneLevels {
  /// 256 of them, whatever the code.
  let table: UnsafePointer<Float>

  @inline(__always)
  func eight(_ codes: UnsafePointer<UInt8>, _ index: Int) -> SIMD8<Float> {
    var result = SIMD8<Float>()
    for lane in 0..<8 { result[lane] = table[Int(codes[index &+ lane])] }
    return result
  }

  @inline(__always)
  func value(_ code: UInt8) -> Float { table[Int(code)] }
}

/// The sums in four lanes: as many variables as there are registers for.
private struct LossLanes {
  private typealias Quad = SIMD4<Double>

  private var source = Quad()
  private var decoded = Quad()
  private var error = Quad()
  private var rest = LossSums()

  @inline(__always)
  mutating func add(_ w: SIMD8<Float>, _ x: SIMD8<Float>) {
    add(w.lowHalf, x.lowHalf)
    add(w.highHalf, x.highHalf)
  }

  @inline(__always)
  private mutating func add(_ w: SIMD4<Float>, _ x: SIMD4<Float>) {
    let (w, x) = (Self.wide(w), Self.wide(x))
    let difference = w - x
    source += w * w
    decoded += x * x
    error += difference * difference
  }

  @inline(__always)
  private static func wide(_ values: SIMD4<Float>) -> Quad {
    var result = Quad()
    // Lane by lane, as SIMD initializers are calls.
    for lane in 0..<4 { result[lane] = Double(values[lane]) }
    return result
  }

  @inline(__always)
  mutating func add(_ w: Float, _ x: Float) {
    let (w, x) = (Double(w), Double(x))
    rest.source += w * w
    rest.decoded += x * x
    rest.error += (w - x) * (w - x)
  }

  /// Bounds: see `LossSums.init`.
  @inline(__always)
  mutating func add<Weight: StoredWeight, Levels: LaneLevels>(
    _: Weight.Type, _ w: UnsafeRawPointer, _ q: UnsafePointer<UInt8>, _ groups: GroupRuns, _ scales: Span<Float>,
    _ first: Int, _ sample: ElementSample, _ levels: (Int) -> Levels
  ) {
    for (index, group) in groups.enumerated() {
      let (scale, levels) = (scales[index], levels(index))
      sample.forEach(in: first &+ group.lowerBound..<first &+ group.upperBound) { start, end in
        if end &- start == 8 {
          add(Weight.eight(w, start &- first), levels.eight(q, start &- first) * scale)
        } else {
          for element in start..<end {
            add(Weight.value(w, element &- first), levels.value(q[element &- first]) * scale)
          }
        }
      }
    }
  }

  /// Always in the same order.
  var total: LossSums {
    var sums = LossSums()
    for lane in 0..<4 {
      sums += LossSums(source: source[lane], decoded: decoded[lane], error: error[lane])
    }
    sums += rest
    return sums
  }
}
