import Checkpoints
import Crypto
import Evaluation
import Kernels
import Models
import OrderedCollections
import Packing
import Quantization
import Reports
import Synchronization
import SystemPackage
import Tokenizers

/// Writes a model as a GGUF file: names and metadata as llama.cpp expects them, weights in the types of a mix.
///
/// The plan is complete before any work. Tiles are whole rows, and whole heads where rows change places; what a tile
/// becomes depends on its values and the importance of its columns alone, so the file is the same for any number of
/// threads. Memory is a tile's for each thread, and the metadata.
package struct GGUFConversion: Sendable {
  package struct Options: Sendable {
    package var mix: GGUFMix
    package var importance: ImportanceMatrix?
    /// The imatrix as the user named it, for the record in the file.
    package var importanceFile: String?
    package var writesTokenizer = true

    package init(mix: GGUFMix) { self.mix = mix }
  }

  /// One tensor of the file.
  private struct Item: Sendable {
    let specification: GGUFSpecification
    let origin: Origin
    /// Of each column, or of each column of every matrix.
    let importance: [Float]?
    let rowsPerTile: Int

    /// Matrices that the tensor stacks.
    var matrices: Int { specification.shape.count > 2 ? specification.shape[0] : 1 }
    /// Of a matrix.
    var rows: Int { specification.shape.dropLast().suffix(1).reduce(1, *) }
    var columns: Int { specification.shape.last ?? 1 }
    var tilesPerMatrix: Int { (rows + rowsPerTile - 1) / rowsPerTile }
    var tileCount: Int { matrices * tilesPerMatrix }
  }

  private enum Origin: Sendable {
    case constant([Float])
    /// Rows as they are, plus an offset.
    case rows(String, offset: Float)
    /// Rows of heads of so many, the two halves of each side by side.
    case heads(String, rows: Int)
    /// Stored `[columns, rows]`.
    case transposed(String)
    /// Matrices one after another: of each the tensor, and its first row there.
    case matrices([(name: String, firstRow: Int)])
  }

  private let source: any WeightSource
  private let items: [Item]
  package let layout: GGUFLayout
  package let metadata: GGUFMetadata
  /// Tensors of the source that have no place in the file, with the reason.
  package let dropped: [(name: String, reason: String)]
  package let summary: GGUFSummary
  /// What runtimes will do otherwise than the original; nil where nothing is known.
  package let warning: String?

  /// - Parameters:
  ///   - source: the weights.
  ///   - configuration: config.json.
  ///   - folder: where the tokenizer is.
  package init(
    _ source: any WeightSource, configuration: JSONValue?, folder: FilePath, _ options: Options
  ) throws {
    self.source = source
    let model = try GGUFModel(configuration: configuration, file: source.place)
    let architecture = model.architecture
    warning = model.ignoredWindow.map { window in
      "its layers attend to \(window) tokens, but llama.cpp lets those of '\(architecture.name)' files see all: beyond"
        + " \(window) tokens results differ"
    }
    let prefix = architecture.prefix(of: source.tensorNames)
    let situation = GGUFMix.Situation(
      blockCount: model.blockCount, headsPerKey: model.heads / model.keyValueHeads, isTied: model.isTied,
      hasImportance: options.importance != nil, expertCount: model.expertCount)
    var dropped: [(String, String)] = []
    var placed: [(rank: Int, item: Item)] = []
    var stacks = ExpertStacks(count: model.expertCount, file: source.place)
    for name in source.tensorNames {
      let expertPlaces = architecture.expertPlaces(of: name, prefix: prefix)
      if !expertPlaces.isEmpty {
        try stacks.add(name, source.shape(of: name) ?? [], expertPlaces)
        continue
      }
      if GGUFArchitecture.isBuffer(name) {
        dropped.append((name, "a constant that runtimes compute"))
        continue
      }
      guard let place = architecture.place(of: name, prefix: prefix), let shape = source.shape(of: name),
        place.layer.map({ $0 < model.blockCount }) ?? true
      else { throw GGUFError(file: source.place, tensor: name, .noPlace(architecture: architecture.name)) }
      if place.part == "output", model.isTied {
        dropped.append((name, "the embedding serves as output head"))
        continue
      }
      placed.append((place.rank, try Self.item(name, shape, place, model, situation, options, source.place)))
    }
    for stack in try stacks.complete() where stack.place.layer < model.blockCount {
      placed.append((stack.place.rank, try Self.item(stack, situation, options, source.place)))
    }
    for (name, values) in model.constants {
      let specification = GGUFSpecification(name: name, type: .f32, shape: [values.count])
      placed.append(
        (-1, Item(specification: specification, origin: .constant(values), importance: nil, rowsPerTile: 1)))
    }
    placed.sort { ($0.rank, $0.item.specification.name) < ($1.rank, $1.item.specification.name) }
    items = placed.map(\.item)
    self.dropped = dropped
    let written = Set(items.map(\.specification.name))
    for needed in ["token_embd.weight", "output_norm.weight"] + (model.isTied ? [] : ["output.weight"])
    where !written.contains(needed) {
      throw GGUFError(file: source.place, tensor: needed, .missingTensor)
    }
    var metadata: GGUFMetadata = [
      "general.architecture": .string(architecture.name), "general.type": .string("model"),
      "general.name": .string(folder.lastComponent?.string ?? "model"),
      "general.file_type": .uint32(options.mix.fileType), "general.quantization_version": .uint32(2),
    ]
    metadata.merge(model.metadata) { first, _ in first }
    let embedding = items.first { $0.specification.name == "token_embd.weight" }
    let tokenizer: GGUFMetadata
    if let file = (source as? GGUFSource)?.file, options.writesTokenizer {
      tokenizer = file.header.metadata.filter { $0.key.hasPrefix("tokenizer.") }
    } else {
      tokenizer = try GGUFTokenizer.metadata(
        folder: folder, size: embedding?.rows ?? 0, configuration: configuration, isWanted: options.writesTokenizer)
    }
    metadata.merge(tokenizer) { first, _ in first }
    if let importance = options.importance {
      metadata["quantize.imatrix.file"] = .string(options.importanceFile ?? "")
      metadata["quantize.imatrix.dataset"] = .string(importance.datasets.first ?? "")
      metadata["quantize.imatrix.entries_count"] = .int32(Int32(clamping: importance.means.count))
      metadata["quantize.imatrix.chunks_count"] = .int32(Int32(clamping: importance.chunkCount))
    }
    self.metadata = metadata
    layout = GGUFLayout(items.map(\.specification), metadata: metadata)
    summary = GGUFSummary(
      architecture: architecture.name, mix: options.mix.rawValue, fileSize: layout.fileSize,
      tensors: items.map {
        GGUFSummary.Tensor(
          name: $0.specification.name, type: $0.specification.type, shape: $0.specification.shape,
          byteCount: $0.specification.byteCount, isWeighed: $0.importance != nil)
      }, dropped: dropped.map { GGUFSummary.Dropped(name: $0.0, reason: $0.1) })
  }

  private static func item(
    _ name: String, _ shape: [Int], _ place: GGUFArchitecture.Place, _ model: GGUFModel, _ situation: GGUFMix.Situation,
    _ options: Options, _ file: String
  ) throws(GGUFError) -> Item {
    guard (1...2).contains(shape.count), shape.allSatisfy({ $0 > 0 }) else {
      throw GGUFError(file: file, tensor: name, .shape(shape, expected: "a vector or a matrix"))
    }
    guard place.name.utf8.count <= GGUFHeader.nameLimit else {
      throw GGUFError(file: file, tensor: name, .nameTooLong(place.name))
    }
    let stored = place.isTransposed ? Array(shape.reversed()) : shape
    let type = options.mix.type(
      of: place.part, layer: place.layer, shape: stored, isMatrix: place.name.hasSuffix(".weight"), in: situation)
    var origin = Origin.rows(
      name, offset: place.part.hasSuffix("norm") && place.name.hasSuffix(".weight") ? model.architecture.normOffset : 0)
    var unit = 1
    if place.isTransposed {
      origin = .transposed(name)
    } else if model.architecture.permutesHeads, place.part == "attn_q" || place.part == "attn_k" {
      let heads = place.part == "attn_q" ? model.heads : model.keyValueHeads
      guard stored[0] == heads * model.headDimension else {
        throw GGUFError(
          file: file, tensor: name, .shape(shape, expected: "\(heads) heads of \(model.headDimension) rows"))
      }
      origin = .heads(name, rows: model.headDimension)
      unit = stored.count == 2 ? model.headDimension : stored[0]
    }
    var importance: [Float]?
    if let means = options.importance?.means[place.name], !type.isPlain {
      guard means.count == stored.last else {
        throw GGUFError(
          file: file, tensor: name, .importanceLength(found: means.count, expected: stored.last ?? 0))
      }
      importance = means
    }
    let columns = stored.last ?? 1
    // Whole rows, about 2^17 values, in whole heads; a vector is one tile.
    let rowsPerTile =
      stored.count == 1 ? 1 : max(1, (1 << 17) / columns / unit) * unit
    return Item(
      specification: GGUFSpecification(name: place.name, type: type, shape: stored), origin: origin,
      importance: importance, rowsPerTile: rowsPerTile)
  }

  /// A tensor that stacks experts.
  private static func item(
    _ stack: ExpertStacks.Stack, _ situation: GGUFMix.Situation, _ options: Options, _ file: String
  ) throws(GGUFError) -> Item {
    let (place, shape) = (stack.place, stack.shape)
    let type = options.mix.type(of: place.part, layer: place.layer, shape: shape, isMatrix: true, in: situation)
    var importance: [Float]?
    if let means = options.importance?.means[place.name], !type.isPlain {
      guard means.count == shape[2] || means.count == shape[0] * shape[2] else {
        throw GGUFError(
          file: file, tensor: place.name, .importanceLength(found: means.count, expected: shape[0] * shape[2]))
      }
      importance = means
    }
    return Item(
      specification: GGUFSpecification(name: place.name, type: type, shape: shape), origin: .matrices(stack.matrices),
      importance: importance, rowsPerTile: max(1, (1 << 17) / shape[2]))
  }

  // MARK: Writing

  private struct Buffers {
    var reader: any WeightReader
    var encoders: [BlockType: BlockEncoder] = [:]
    var values: [Float] = []
    var moved: [Float] = []
    var bytes: [UInt8] = []
  }

  /// What decides the bytes of the file, beside those of the source.
  package var recipe: JSONValue {
    var importance = SHA256()
    for item in items { importance.update(data: Array("\(item.importance ?? [])".utf8)) }
    return [
      "layout": "gguf", "mix": .string(summary.mix), "header": .string(hexadecimal(SHA256.hash(data: layout.head))),
      "importance": .string(hexadecimal(importance.finalize())),
    ]
  }

  /// Writes the file.
  /// - Parameter earlier: the entries of an interrupted run that is taken up.
  /// - Parameter onProgress: called from any thread, one call at a time; false stops the work.
  package func run(
    into output: OutputFile, goingOnFrom earlier: [JSONValue] = [], workers: Int,
    onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws {
    do {
      try output.beginIfNeeded()
      let finished = try finishedTensors(earlier, in: output, workers: workers, onProgress: onProgress)
      try output.allocate(layout.fileSize)
      try output.write(layout.head, count: layout.head.count, at: 0)
      var tiles: [(item: Int, tile: Int)] = []
      for (index, item) in items.enumerated() where !finished.contains(item.specification.name) {
        tiles += (0..<item.tileCount).map { (index, $0) }
      }
      let list = tiles
      let hashes = items.map { WrittenHash(byteCount: $0.specification.byteCount) }
      let work = items.filter { !finished.contains($0.specification.name) }
      let progress = ProgressCounter(
        total: work.reduce(0) { $0 + $1.specification.byteCount },
        kinds: work.reduce(into: [:]) { $0[$1.specification.type.name, default: 0] += $1.specification.byteCount },
        report: onProgress)
      try runParallel(
        count: list.count, workers: workers, makeState: { Buffers(reader: source.makeReader()) }
      ) { index, buffers in
        let (item, tile) = list[index]
        try progress.add(
          try write(tile, of: items[item], to: output, hashes[item], &buffers), items[item].specification.type.name)
      }
      try output.commit()
    } catch {
      throw output.leave(error)
    }
  }

  /// The tensors that an interrupted run has written, as the bytes on disk bear out.
  private func finishedTensors(
    _ entries: [JSONValue], in output: OutputFile, workers: Int,
    onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> Set<String> {
    let recorded = RecordedMember.hashes(in: entries)
    let members = items.map(\.specification).compactMap { item -> RecordedMember? in
      guard let hash = recorded[item.name]?[item.name], let start = layout.offsets[item.name] else { return nil }
      return RecordedMember(
        tensor: item.name, file: output.written, range: start..<start + item.byteCount, hash: hash)
    }
    return try RecordedMember.confirmedTensors(members, workers: workers, onProgress: onProgress)
  }

  /// Whether a file is there that this would write, as far as its header tells.
  package func isWritten(at path: FilePath) -> Bool {
    guard let header = try? GGUFFile(path).header else { return false }
    // Importances that are still to be gathered have not been counted.
    func known(_ metadata: GGUFMetadata) -> GGUFMetadata {
      metadata.filter { !["quantize.imatrix.entries_count", "quantize.imatrix.chunks_count"].contains($0.key) }
    }
    return known(header.metadata) == known(metadata)
      && header.tensors.map { GGUFSpecification(name: $0.name, type: $0.type, shape: $0.shape) }
        == items.map(\.specification)
  }

  // MARK: Memory

  /// Elements of the largest tile.
  var largestTile: Int { items.map { $0.rowsPerTile * $0.columns }.max() ?? 0 }
  var tileCount: Int { items.reduce(0) { $0 + $1.tileCount } }
  var importanceCount: Int { items.reduce(0) { $0 + ($1.importance?.count ?? 0) } }

  private func write(
    _ tile: Int, of item: Item, to output: OutputFile, _ hash: WrittenHash, _ buffers: inout Buffers
  ) throws -> Int {
    let (matrix, part) = tile.quotientAndRemainder(dividingBy: item.tilesPerMatrix)
    let own = part * item.rowsPerTile..<min((part + 1) * item.rowsPerTile, item.rows)
    let rows = matrix * item.rows + own.lowerBound..<matrix * item.rows + own.upperBound
    try Self.read(rows, of: item, &buffers.reader, &buffers.values, &buffers.moved)
    if let place = firstNonFinite(buffers.values.span) {
      throw GGUFError(
        file: source.place, tensor: item.specification.name,
        .notFinite(index: position(of: rows.lowerBound * item.columns + place, in: item.specification.shape)))
    }
    let type = item.specification.type
    // Taken out, so that its buffers are not copied.
    var encoder = buffers.encoders.removeValue(forKey: type) ?? BlockEncoder(type)
    let values = buffers.values
    let importance = item.importance.map { means in
      means.count == item.columns
        ? means : Array(means[matrix * item.columns..<(matrix + 1) * item.columns])
    }
    let isInRange = encoder.encode(values.span, columns: item.columns, importance: importance, into: &buffers.bytes)
    buffers.encoders[type] = encoder
    guard isInRange else {
      throw GGUFError(file: source.place, tensor: item.specification.name, .scaleOverflow(type: type.name))
    }
    let name = item.specification.name
    let (first, offset) = (layout.offsets[name] ?? 0, type.byteCount(of: rows.lowerBound * item.columns))
    try output.write(buffers.bytes, count: buffers.bytes.count, at: first + offset)
    let isFinished = try hash.add(buffers.bytes, buffers.bytes.count, at: offset) {
      (part, buffer) throws(ConversionError) in
      try output.read(at: first + part.lowerBound, count: part.count, into: &buffer)
    }
    if isFinished, let journal = output.journal {
      try journal.append([
        FinishedWork.Key.tensor: .string(name), FinishedWork.Key.hashes: [name: .string(hash.value())],
      ])
    }
    return buffers.bytes.count
  }

  /// Reads rows as the file has them.
  private static func read(
    _ rows: Range<Int>, of item: Item, _ reader: inout any WeightReader, _ values: inout [Float],
    _ moved: inout [Float]
  ) throws {
    let columns = item.columns
    switch item.origin {
    case .constant(let constant): values = constant
    case .rows(let name, let offset):
      try read(&reader, name, rows.lowerBound * columns..<rows.upperBound * columns, into: &values)
      if offset != 0 { for index in values.indices { values[index] += offset } }
    case .heads(let name, let headRows):
      // A vector is one row of the file: its elements change places.
      let isVector = item.specification.shape.count == 1
      let width = isVector ? 1 : columns
      let range = isVector ? 0..<columns : rows.lowerBound * columns..<rows.upperBound * columns
      try read(&reader, name, range, into: &moved)
      values.resize(to: moved.count)
      for row in 0..<(moved.count / width) {
        let (head, inner) = (row / headRows, row % headRows)
        let origin = head * headRows + inner % 2 * (headRows / 2) + inner / 2
        for column in 0..<width { values[row * width + column] = moved[origin * width + column] }
      }
    case .matrices(let matrices):
      let (name, firstRow) = matrices[rows.lowerBound / item.rows]
      let first = (firstRow + rows.lowerBound % item.rows) * columns
      try read(&reader, name, first..<first + rows.count * columns, into: &values)
    case .transposed(let name):
      values.resize(to: rows.count * columns)
      for column in 0..<columns {
        let start = column * item.rows
        try read(&reader, name, start + rows.lowerBound..<start + rows.upperBound, into: &moved)
        for row in moved.indices { values[row * columns + column] = moved[row] }
      }
    }
  }

  /// Reads a run of elements from anywhere: readers begin at multiples of eight.
  private static func read(
    _ reader: inout any WeightReader, _ name: String, _ elements: Range<Int>, into values: inout [Float]
  ) throws {
    let start = elements.lowerBound / 8 * 8
    try reader.read(name, start..<elements.upperBound, into: &values)
    if start < elements.lowerBound { values.removeFirst(elements.lowerBound - start) }
  }
}
