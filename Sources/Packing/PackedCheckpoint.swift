import Checkpoints
import Foundation
import Kernels
import OrderedCollections
import Quantization
import SystemPackage

/// A packed folder, opened for reading: manifest and headers are checked against each other first.
package struct PackedCheckpoint: Sendable {
  package let checkpoint: Checkpoint
  package let manifest: PackedManifest
  private let codebooks: [NamedCodebook: [Float]]
  /// Of the tensors that have any; rising, and within the tensor.
  private let outlierColumns: [String: [Int32]]
  private let groupIndices: [String: [Int32]]

  /// True where a folder, or the folder of a file, holds a manifest of ours.
  package static func isPacked(_ path: FilePath) -> Bool {
    FileManager.default.fileExists(atPath: manifestPath(of: path).string)
  }

  private static func manifestPath(of path: FilePath) -> FilePath {
    var isDirectory: ObjCBool = false
    _ = FileManager.default.fileExists(atPath: path.string, isDirectory: &isDirectory)
    return (isDirectory.boolValue ? path : path.removingLastComponent()).appending(PackedManifest.fileName)
  }

  package init(_ path: FilePath) throws(CheckpointError) {
    let manifestPath = Self.manifestPath(of: path)
    let file = manifestPath.string
    checkpoint = try Checkpoint(manifestPath.removingLastComponent())
    manifest = try PackedManifest(try readJSONObject(manifestPath, limit: PackedManifest.sizeLimit), file: file)
    let present = checkpoint.files.map {
      PackedManifest.File(name: $0.path.lastComponent?.string ?? "", byteCount: $0.header.fileSize)
    }
    guard Set(present) == Set(manifest.files) else {
      let found = present.map { "\($0.name) (\($0.byteCount) bytes)" }.joined(separator: ", ")
      throw CheckpointError(file: file, .field("files", expected: "the files of the folder: \(found)"))
    }
    var claimed: Set<String> = []
    var codebooks: [NamedCodebook: [Float]] = [:]
    for member in manifest.codebooks {
      guard let book = NamedCodebook.allCases.first(where: { PackedFormat.specification(of: $0).name == member.tensor })
      else { throw CheckpointError(file: file, tensor: member.tensor, .field("codebooks", expected: "known names")) }
      let specification = PackedFormat.specification(of: book)
      guard member.role == .data, member.byteCount == specification.byteCount, claimed.insert(member.tensor).inserted
      else {
        throw CheckpointError(
          file: file, tensor: member.tensor,
          .field("codebooks", expected: "each once, with role 'data' and \(specification.byteCount) bytes"))
      }
      codebooks[book] = try Self.levels(try Self.find(specification, in: checkpoint, file: file))
    }
    let names = Set(present.map(\.name))
    var outlierColumns: [String: [Int32]] = [:]
    var groupIndices: [String: [Int32]] = [:]
    for record in manifest.records {
      guard names.contains(record.file) else {
        throw CheckpointError(file: file, tensor: record.name, .field("file", expected: "one of 'files'"))
      }
      let expected: [PackedFormat.Member]
      if let encoding = record.encoding {
        expected = PackedFormat.members(of: record.name, shape: record.codedShape, encoding: encoding)
        for book in PackedFormat.codebooks(of: encoding) where codebooks[book] == nil {
          throw CheckpointError(file: file, tensor: record.name, .field("codebooks", expected: "a list with \(book)"))
        }
      } else {
        let specification = TensorSpecification(name: record.name, type: record.type, shape: record.shape)
        expected = [PackedFormat.Member(role: .data, specification: specification)]
      }
      guard expected.map(\.role) == record.members.map(\.role),
        expected.map(\.specification.name) == record.members.map(\.tensor),
        expected.map(\.specification.byteCount) == record.members.map(\.byteCount)
      else {
        let names = expected.map { "\($0.role.rawValue) (\($0.specification.byteCount) bytes)" }
        let list = names.joined(separator: ", ")
        throw CheckpointError(file: file, tensor: record.name, .field("members", expected: "exactly \(list)"))
      }
      for member in expected {
        let tensor = try Self.find(member.specification, in: checkpoint, file: file)
        if member.role == .outlierColumns {
          outlierColumns[record.name] = try Self.columns(tensor, width: record.codedShape.last ?? 1)
        }
        if member.role == .groupIndex, let grouping = record.encoding?.grouping(of: record.codedShape) {
          groupIndices[record.name] = try Self.groupIndex(tensor, groups: grouping.groupsPerRow)
        }
        guard claimed.insert(member.specification.name).inserted else {
          throw CheckpointError(
            file: file, tensor: record.name, .field("members", expected: "tensors of its own, not shared ones"))
        }
      }
    }
    for tensor in checkpoint.tensors where !claimed.contains(tensor.name) {
      throw CheckpointError(
        file: tensor.file.path.string, tensor: tensor.name, .field("manifest", expected: "to account for this tensor"))
    }
    self.codebooks = codebooks
    self.outlierColumns = outlierColumns
    self.groupIndices = groupIndices
  }

  private static func integers(_ tensor: CheckpointTensor) throws(CheckpointError) -> [Int32] {
    var bytes: [UInt8] = []
    try tensor.file.read(0..<tensor.entry.bytes.count, of: tensor.entry, into: &bytes)
    return (0..<tensor.entry.elementCount).map { index in
      Int32(bitPattern: (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[4 * index + $1]) << UInt32(8 * $1) })
    }
  }

  /// The group of each column.
  private static func groupIndex(_ tensor: CheckpointTensor, groups: Int) throws(CheckpointError) -> [Int32] {
    let index = try integers(tensor)
    if let place = index.firstIndex(where: { $0 < 0 || $0 >= groups }) {
      throw CheckpointError(
        file: tensor.file.path.string, tensor: tensor.name,
        .field("element \(place)", expected: "a group's number, below \(groups), not \(index[place])"))
    }
    return index
  }

  /// The outlier columns of a tensor whose last dimension is `width`.
  private static func columns(_ tensor: CheckpointTensor, width: Int) throws(CheckpointError) -> [Int32] {
    var columns: [Int32] = []
    for (index, column) in try integers(tensor).enumerated() {
      guard column > columns.last ?? -1, column < width else {
        throw CheckpointError(
          file: tensor.file.path.string, tensor: tensor.name,
          .field("element \(index)", expected: "rising column numbers below \(width), not \(column)"))
      }
      columns.append(column)
    }
    return columns
  }

  private static func find(
    _ specification: TensorSpecification, in checkpoint: Checkpoint, file: String
  ) throws(CheckpointError) -> CheckpointTensor {
    let expected = "\(specification.type.rawValue) \(specification.shape)"
    guard let tensor = checkpoint[specification.name] else {
      throw CheckpointError(
        file: file, tensor: specification.name, .field("the tensor", expected: "present: \(expected)"))
    }
    guard tensor.entry.type == specification.type, tensor.entry.shape == specification.shape else {
      throw CheckpointError(
        file: tensor.file.path.string, tensor: specification.name,
        .field("dtype and shape", expected: "\(expected), not \(tensor.entry.type.rawValue) \(tensor.entry.shape)"))
    }
    return tensor
  }

  private static func levels(_ tensor: CheckpointTensor) throws(CheckpointError) -> [Float] {
    var bytes: [UInt8] = []
    try tensor.file.read(0..<tensor.entry.bytes.count, of: tensor.entry, into: &bytes)
    var levels = [Float](repeating: 0, count: tensor.entry.elementCount)
    var target = levels.mutableSpan
    decodeElements(bytes.span.bytes, as: .f32, into: &target)
    return levels
  }

  package subscript(name: String) -> PackedManifest.Record? { manifest.records.first { $0.name == name } }

  // MARK: Decoding

  /// Buffers for decoding, reused from call to call; what they hold afterwards may be looked at.
  package struct Workspace: Sendable {
    /// The codes of the decoded elements, of a quantized tensor.
    package fileprivate(set) var codes: [UInt8] = []
    /// Scales and zero points of groups next to each other, those that the elements belong to among them.
    package fileprivate(set) var scales: [Float] = []
    package fileprivate(set) var zeroPoints: [Float] = []
    /// The number of that group.
    package fileprivate(set) var firstGroup = 0
    fileprivate var outliers: [Float] = []
    fileprivate var strip: [Float] = []
    fileprivate var bytes: [UInt8] = []

    package init() {}
  }

  /// Reconstructs a run of elements of a tensor, quantized or kept, as float32.
  ///
  /// This reader shares no code with the packer but the bit stream's: it follows `Docs/PackedFormat.md`. Of a transposed
  /// weight, what the workspace holds afterwards is the last column's: decode `record.coded` to look at it.
  /// - Parameter elements: of the flattened tensor, from a multiple of eight on.
  package func decode(
    _ record: PackedManifest.Record, _ elements: Range<Int>, into values: inout [Float],
    using workspace: inout Workspace
  ) throws(CheckpointError) {
    precondition(elements.lowerBound % 8 == 0 && elements.upperBound <= record.elementCount)
    values.resize(to: elements.count)
    if record.isTransposed { return try decodeColumns(record, elements, into: &values, using: &workspace) }
    guard let encoding = record.encoding else {
      let width = record.type.bitWidth
      let range = elements.lowerBound * width / 8..<(elements.upperBound * width + 7) / 8
      try read(record, .data, range, into: &workspace.bytes)
      var target = values.mutableSpan
      decodeElements(workspace.bytes.span.bytes, as: record.type, into: &target)
      return
    }
    guard !elements.isEmpty else { return }
    let grouping = encoding.grouping(of: record.shape)
    try readCodes(record, encoding, elements, role: .codes, into: &workspace.codes, &workspace.bytes)
    if let index = groupIndices[record.name] {
      return try decode(record, encoding, grouping, index, elements, into: &values, using: &workspace)
    }
    let groups = grouping.group(of: elements.lowerBound)..<(grouping.group(of: elements.upperBound - 1) + 1)
    try readScales(record, encoding, groups, &workspace)
    for group in groups {
      let members = grouping.elements(of: group).clamped(to: elements)
      let start = members.lowerBound - elements.lowerBound
      let codes = workspace.codes.span.extracting(start..<(start + members.count))
      let scale = workspace.scales[group - groups.lowerBound]
      var target = values.mutableSpan
      switch encoding.levels {
      case .affine(let kind):
        let zeroPoint = kind == .middle ? encoding.middle : workspace.zeroPoints[group - groups.lowerBound]
        let range = AffineRange(scale: scale, zeroPoint: zeroPoint, highestCode: encoding.highestCode)
        decodeAffine(codes, range, into: &target, at: start)
      case .codebook(let name):
        let levels = (codebooks[name] ?? []).map { $0 * scale }
        for index in 0..<codes.count { target[start + index] = levels[Int(codes[index])] }
      }
    }
    if let columns = outlierColumns[record.name], let outliers = encoding.outliers {
      let width = record.shape.last ?? 1
      let rows = elements.lowerBound / width..<((elements.upperBound - 1) / width + 1)
      try readOutliers(record, outliers, rows, into: &workspace.outliers, &workspace.bytes)
      for row in rows {
        for (position, column) in columns.enumerated() {
          let element = row * width + Int(column)
          guard elements.contains(element) else { continue }
          values[element - elements.lowerBound] =
            workspace.outliers[(row - rows.lowerBound) * columns.count + position]
        }
      }
    }
  }

  /// Elements, in the source's order, of a weight whose codes run over its transpose: a stretch of every row of that.
  private func decodeColumns(
    _ record: PackedManifest.Record, _ elements: Range<Int>, into values: inout [Float],
    using workspace: inout Workspace
  ) throws(CheckpointError) {
    guard !elements.isEmpty else { return }
    let coded = record.coded
    let (rows, columns) = (coded.shape[coded.shape.count - 2], coded.shape[coded.shape.count - 1])
    let size = rows * columns
    var strip: [Float] = []
    swap(&strip, &workspace.strip)
    defer { swap(&strip, &workspace.strip) }
    for matrix in elements.lowerBound / size...(elements.upperBound - 1) / size {
      let part = elements.clamped(to: matrix * size..<(matrix + 1) * size)
      // The source's rows are columns here.
      let first = (part.lowerBound - matrix * size) / rows
      let last = (part.upperBound - 1 - matrix * size) / rows
      for row in 0..<rows {
        let start = matrix * size + row * columns + first
        let lead = start % 8
        try decode(coded, start - lead..<start + last - first + 1, into: &strip, using: &workspace)
        for column in first...last {
          let element = matrix * size + column * rows + row
          if part.contains(element) { values[element - elements.lowerBound] = strip[lead + column - first] }
        }
      }
    }
  }

  /// Elements whose codes have been read, of a tensor whose groups are not runs of columns.
  private func decode(
    _ record: PackedManifest.Record, _ encoding: WeightEncoding, _ grouping: Grouping, _ index: [Int32],
    _ elements: Range<Int>, into values: inout [Float], using workspace: inout Workspace
  ) throws(CheckpointError) {
    let (width, perRow) = (grouping.rowLength, grouping.groupsPerRow)
    let rows = elements.lowerBound / width..<((elements.upperBound - 1) / width + 1)
    try readScales(record, encoding, rows.lowerBound * perRow..<rows.upperBound * perRow, &workspace)
    let rowsPerMatrix = grouping.rows / (index.count / width)
    for element in elements {
      let (row, column) = (element / width, element % width)
      let group = (row - rows.lowerBound) * perRow + Int(index[row / rowsPerMatrix * width + column])
      let zeroPoint = workspace.zeroPoints.isEmpty ? encoding.middle : workspace.zeroPoints[group]
      let range = AffineRange(
        scale: workspace.scales[group], zeroPoint: zeroPoint, highestCode: encoding.highestCode)
      values[element - elements.lowerBound] = range.value(of: workspace.codes[element - elements.lowerBound])
    }
  }

  /// The group of each column, of a tensor whose groups are not runs of columns.
  package func groupIndex(of record: PackedManifest.Record) -> [Int32]? { groupIndices[record.name] }

  /// The columns of a tensor that are stored beside its codes.
  package func outlierColumns(of record: PackedManifest.Record) -> [Int32] { outlierColumns[record.name] ?? [] }

  /// The integers that rows of a tensor are made of: weight = scale · integer, but for outlier columns, whose integers
  /// are 0.
  /// - Parameters:
  ///   - integers: receives them as float32, code less 128.
  ///   - scales: receives one for each row.
  ///   - outliers: receives the weights of the outlier columns, row by row.
  ///   - rows: of the weight as its codes run.
  /// - Precondition: the encoding `isIntegerRows`.
  package func decodeIntegers(
    _ record: PackedManifest.Record, _ rows: Range<Int>, into integers: inout [Float], scales: inout [Float],
    outliers: inout [Float], using workspace: inout Workspace
  ) throws(CheckpointError) {
    let record = record.coded
    guard let encoding = record.encoding, encoding.isIntegerRows else { preconditionFailure("not rows of integers") }
    let width = record.shape.last ?? 1
    precondition(rows.lowerBound >= 0 && rows.upperBound * width <= record.elementCount)
    try readCodes(
      record, encoding, rows.lowerBound * width..<rows.upperBound * width, role: .codes, into: &workspace.codes,
      &workspace.bytes)
    try readScales(record, encoding, rows, &workspace)
    scales = workspace.scales
    integers.resize(to: workspace.codes.count)
    var target = integers.mutableSpan
    decodeAffine(
      workspace.codes.span, AffineRange(scale: 1, zeroPoint: encoding.middle, highestCode: encoding.highestCode),
      into: &target)
    outliers.removeAll(keepingCapacity: true)
    guard let columns = outlierColumns[record.name], let form = encoding.outliers else { return }
    try readOutliers(record, form, rows, into: &outliers, &workspace.bytes)
    for row in 0..<rows.count {
      for column in columns { integers[row * width + Int(column)] = 0 }
    }
  }

  private func readOutliers(
    _ record: PackedManifest.Record, _ outliers: WeightEncoding.Outliers, _ rows: Range<Int>,
    into values: inout [Float], _ bytes: inout [UInt8]
  ) throws(CheckpointError) {
    try readFloats(
      record, .outlierWeights, outliers.type, rows.lowerBound * outliers.count..<rows.upperBound * outliers.count,
      into: &values, &bytes)
  }

  private func readScales(
    _ record: PackedManifest.Record, _ encoding: WeightEncoding, _ groups: Range<Int>, _ workspace: inout Workspace
  ) throws(CheckpointError) {
    workspace.firstGroup = groups.lowerBound
    workspace.zeroPoints.removeAll(keepingCapacity: true)
    switch encoding.scales {
    case .plain(let type):
      try readFloats(record, .scales, type, groups, into: &workspace.scales, &workspace.bytes)
      switch encoding.levels {
      case .affine(.float):
        try readFloats(record, .zeroPoints, type, groups, into: &workspace.zeroPoints, &workspace.bytes)
      case .affine(.integer):
        // The stream is read from the byte that holds the first group's code.
        let first = groups.lowerBound / 8 * 8
        var codes: [UInt8] = []
        try readCodes(
          record, encoding, first..<groups.upperBound, role: .zeroPoints, into: &codes, &workspace.bytes)
        workspace.zeroPoints = codes[(groups.lowerBound - first)...].map { Float($0) }
      case .affine(.middle), .codebook: break
      }
    case .nested(let blockSize):
      var offset: [Float] = []
      var blockScales: [Float] = []
      let blocks = groups.lowerBound / blockSize..<((groups.upperBound - 1) / blockSize + 1)
      try readFloats(record, .scaleOffset, .f32, 0..<1, into: &offset, &workspace.bytes)
      try readFloats(record, .blockScales, .f32, blocks, into: &blockScales, &workspace.bytes)
      try read(record, .scaleCodes, groups, into: &workspace.bytes)
      let levels = codebooks[.dynamic8] ?? []
      workspace.scales.resize(to: groups.count)
      for group in groups {
        let level = levels[Int(workspace.bytes[group - groups.lowerBound])]
        let blockScale = blockScales[group / blockSize - blocks.lowerBound]
        workspace.scales[group - groups.lowerBound] = level * blockScale + offset[0]
      }
    }
  }

  private func readCodes(
    _ record: PackedManifest.Record, _ encoding: WeightEncoding, _ range: Range<Int>, role: PackedFormat.Role,
    into codes: inout [UInt8], _ bytes: inout [UInt8]
  ) throws(CheckpointError) {
    let bits = encoding.bits
    try read(record, role, range.lowerBound * bits / 8..<(range.upperBound * bits + 7) / 8, into: &bytes)
    codes.resize(to: range.count)
    var target = codes.mutableSpan
    unpackBits(bytes.span, bits: bits, into: &target)
  }

  private func readFloats(
    _ record: PackedManifest.Record, _ role: PackedFormat.Role, _ type: ElementType, _ range: Range<Int>,
    into values: inout [Float], _ bytes: inout [UInt8]
  ) throws(CheckpointError) {
    let width = type.bitWidth / 8
    try read(record, role, range.lowerBound * width..<range.upperBound * width, into: &bytes)
    values.resize(to: range.count)
    var target = values.mutableSpan
    decodeElements(bytes.span.bytes, as: type, into: &target)
  }

  /// Reads bytes of a member. Opening has made sure that it exists with its full size.
  private func read(
    _ record: PackedManifest.Record, _ role: PackedFormat.Role, _ range: Range<Int>, into bytes: inout [UInt8]
  ) throws(CheckpointError) {
    guard let member = record.members.first(where: { $0.role == role }), let tensor = checkpoint[member.tensor]
    else {
      throw CheckpointError(
        file: checkpoint.folder.string, tensor: record.name, .field("members", expected: "with \(role.rawValue)"))
    }
    try tensor.file.read(range, of: tensor.entry, into: &bytes)
  }
}
