import Kernels

/// One quantized weight `[rows, columns]` in memory, as codes and what turns them back: the unit in which the layouts of
/// runtimes are read.
package struct CodedWeight: Hashable, Sendable {
  /// What a code stands for.
  package enum Decoding: Hashable, Sendable {
    /// scale · (code − zero point); without stored zero points the middle, `1 << (bits − 1)`.
    case zeroPoint
    /// scale · code + offset, the offsets standing in `zeroPoints`.
    case offset
    /// scale · level[code]
    case levels([Float])
  }

  /// What shares a scale.
  package enum Sharing: Hashable, Sendable {
    /// This many columns of a row; the last group of a row may be shorter.
    case columns(Int)
    /// This many elements of the flattened weight; the last block may be shorter.
    case block(Int)
  }

  /// Scales that are quantized themselves: the scale of code `c` is dynamic8[c] · blockScale + offset.
  package struct NestedScales: Hashable, Sendable {
    package var codes: [UInt8]
    package var blockScales: [Float]
    package var offset: Float

    package init(codes: [UInt8], blockScales: [Float], offset: Float) {
      self.codes = codes
      self.blockScales = blockScales
      self.offset = offset
    }
  }

  package let rows: Int
  package let columns: Int
  package let bits: Int
  package let decoding: Decoding
  package let sharing: Sharing
  /// One code per weight, row-major, in the weight's own order of columns.
  package var codes: [UInt8]
  /// One per group: row by row, or block by block.
  package var scales: [Float]
  /// As many, or none.
  package var zeroPoints: [Float]
  /// The group of each column, where groups are not runs of columns.
  package var groupIndex: [Int32]?
  /// With doubly quantized scales, what is stored of them; `scales` holds what they decode to.
  package var nested: NestedScales?
  /// What all scales are divided by (NVFP4), in float32.
  package var divisor: Float = 1
  /// What every value is multiplied by at last (LLM.int8()), in float32.
  package var factor: Float = 1

  /// - Precondition: as many codes as elements, as many scales as groups, zero points for all groups or none, and a group
  ///   index, if any, of one group of a row per column.
  package init(
    rows: Int, columns: Int, bits: Int, decoding: Decoding, sharing: Sharing, codes: [UInt8], scales: [Float],
    zeroPoints: [Float] = [], groupIndex: [Int32]? = nil, nested: NestedScales? = nil
  ) {
    self.rows = rows
    self.columns = columns
    self.bits = bits
    self.decoding = decoding
    self.sharing = sharing
    self.codes = codes
    self.scales = scales
    self.zeroPoints = zeroPoints
    self.groupIndex = groupIndex
    self.nested = nested
    precondition(codes.count == rows * columns && scales.count == groupCount)
    precondition(zeroPoints.isEmpty || zeroPoints.count == scales.count)
    precondition(
      groupIndex.map { $0.count == columns && $0.allSatisfy { (0..<Int32(groupsPerRow)).contains($0) } } ?? true)
  }

  package var groupLength: Int {
    switch sharing {
    case .columns(let length), .block(let length): length
    }
  }

  package var groupsPerRow: Int { (columns + groupLength - 1) / groupLength }

  package var groupCount: Int {
    switch sharing {
    case .columns: rows * groupsPerRow
    case .block(let length): (rows * columns + length - 1) / length
    }
  }

  package var middle: Float { Float(1 << (bits - 1)) }

  package func zeroPoint(ofGroup group: Int) -> Float { zeroPoints.isEmpty ? middle : zeroPoints[group] }

  /// Decodes a run of the flattened weight: every product and sum rounded to float32 once, in the order that
  /// `Decoding` writes.
  package func decode(_ elements: Range<Int>, into values: inout [Float]) {
    precondition(elements.lowerBound >= 0 && elements.upperBound <= codes.count)
    values.resize(to: elements.count)
    var target = values.mutableSpan
    var position = elements.lowerBound
    while position < elements.upperBound {
      let (row, column) = position.quotientAndRemainder(dividingBy: columns)
      let group: Int
      var end: Int
      switch sharing {
      case .block(let length):
        group = position / length
        end = (group + 1) * length
      case .columns(let length):
        if let groupIndex {
          group = row * groupsPerRow + Int(groupIndex[column])
          end = position + 1
        } else {
          group = row * groupsPerRow + column / length
          end = row * columns + min((column / length + 1) * length, columns)
        }
      }
      end = min(end, elements.upperBound)
      decode(position..<end, group: group, into: &target, at: position - elements.lowerBound)
      position = end
    }
    if factor != 1 { for index in 0..<target.count { target[index] *= factor } }
  }

  /// Decodes a run of the weight's transpose, flattened: a stretch of each of its rows.
  package func decodeColumns(_ elements: Range<Int>, into values: inout [Float]) {
    precondition(elements.lowerBound >= 0 && elements.upperBound <= codes.count)
    values.resize(to: elements.count)
    guard !elements.isEmpty else { return }
    let (first, last) = (elements.lowerBound / rows, (elements.upperBound - 1) / rows)
    var strip: [Float] = []
    for row in 0..<rows {
      decode(row * columns + first..<row * columns + last + 1, into: &strip)
      for column in first...last {
        let element = column * rows + row
        if elements.contains(element) { values[element - elements.lowerBound] = strip[column - first] }
      }
    }
  }

  private func decode(_ members: Range<Int>, group: Int, into target: inout MutableSpan<Float>, at start: Int) {
    let scale = scales[group] / divisor
    switch decoding {
    case .zeroPoint:
      let range = AffineRange(scale: scale, zeroPoint: zeroPoint(ofGroup: group), highestCode: (1 << Int32(bits)) - 1)
      decodeAffine(codes.span.extracting(members), range, into: &target, at: start)
    case .offset:
      let offset = zeroPoints[group]
      for (index, element) in members.enumerated() { target[start + index] = scale * Float(codes[element]) + offset }
    case .levels(let levels):
      for (index, element) in members.enumerated() { target[start + index] = scale * levels[Int(codes[element])] }
    }
  }
}
