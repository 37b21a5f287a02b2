import Checkpoints
import Kernels
import OrderedCollections
import SystemPackage

/// E[x²] of every input column of the layers of a model, by GGUF name: what llama.cpp calls an imatrix.
///
/// Read in both forms that llama.cpp has written: GGUF files, with sums of squares and counts, and the older `.dat` files.
package struct ImportanceMatrix: Sendable {
  /// By the GGUF name of the weight; experts one after another.
  package var means: OrderedDictionary<String, [Float]> = [:]
  /// How many matrices a tensor stacks, where they are several.
  package var expertCounts: [String: Int] = [:]
  package var datasets: [String] = []
  package var chunkCount = 0

  package init() {}

  package init(_ path: FilePath) throws {
    if GGUFFile.isGGUF(path) {
      try self.init(GGUFFile(path))
    } else {
      try self.init(legacy: readWhole(path, limit: 1 << 31), file: path.string)
    }
  }

  private static let sums = ".in_sum2"
  private static let counts = ".counts"

  private init(_ file: GGUFFile) throws {
    func wrong(_ what: String, _ tensor: String? = nil) -> GGUFError {
      GGUFError(file: file.path.string, tensor: tensor, .importance(what))
    }
    let metadata = file.header.metadata
    guard metadata["general.type"]?.string == "imatrix" else {
      throw wrong("its 'general.type' is \(metadata["general.type"]?.string.map { "'\($0)'" } ?? "missing")")
    }
    datasets = metadata["imatrix.datasets"]?.elements?.compactMap(\.string) ?? []
    chunkCount = metadata["imatrix.chunk_count"]?.integer ?? 0
    func values(_ tensor: GGUFTensor) throws -> [Float] {
      guard tensor.type == .f32, tensor.shape.count <= 2 else { throw wrong("expected F32 matrices", tensor.name) }
      var bytes: [UInt8] = []
      try file.read(0..<tensor.bytes.count, of: tensor, into: &bytes)
      var values = [Float](repeating: 0, count: tensor.elementCount)
      var span = values.mutableSpan
      decodeElements(bytes.span.bytes, as: .f32, into: &span)
      return values
    }
    for tensor in file.header.tensors where tensor.name.hasSuffix(Self.sums) {
      let name = String(tensor.name.dropLast(Self.sums.count))
      guard let counter = file[name + Self.counts] else { throw wrong("has no counts", tensor.name) }
      let (sums, counts) = (try values(tensor), try values(counter))
      guard !counts.isEmpty, sums.count % counts.count == 0 else {
        throw wrong("\(sums.count) sums do not divide among \(counts.count) counts", tensor.name)
      }
      let columns = sums.count / counts.count
      // A layer that saw no token: all columns alike.
      let means = sums.indices.map { index in
        counts[index / columns] > 0 ? sums[index] / counts[index / columns] : 1
      }
      guard means.allSatisfy({ $0.isFinite && $0 >= 0 }) else {
        throw wrong("expected finite sums of squares", tensor.name)
      }
      self.means[name] = means
      if counts.count > 1 { expertCounts[name] = counts.count }
    }
    if means.isEmpty { throw wrong("no tensor is named …\(Self.sums)") }
  }

  private init(legacy bytes: [UInt8], file: String) throws(GGUFError) {
    var position = 0
    func wrong(_ what: String) -> GGUFError { GGUFError(file: file, .importance(what)) }
    func word() throws(GGUFError) -> UInt32 {
      guard bytes.count - position >= 4 else { throw wrong("it ends early, after \(bytes.count) bytes") }
      defer { position += 4 }
      return (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[position + $1]) << UInt32($1 * 8) }
    }
    func count(_ what: String, size: Int) throws(GGUFError) -> Int {
      let number = Int(Int32(bitPattern: try word()))
      guard number >= 0, number <= (bytes.count - position) / size else {
        throw wrong("it claims \(number) \(what), for which it has no room")
      }
      return number
    }
    let entries = try count("entries", size: 12)
    guard entries > 0 else { throw wrong("it has no entries") }
    for _ in 0..<entries {
      let length = try count("bytes of a name", size: 1)
      guard let name = String(validating: bytes[position..<(position + length)], as: UTF8.self) else {
        throw wrong("a name is not text in UTF-8")
      }
      guard length <= GGUFHeader.nameLimit - Self.sums.utf8.count else {
        throw wrong("a name has \(length) bytes, more than any weight's in GGUF")
      }
      position += length
      let calls = max(1, Float(Int32(bitPattern: try word())))
      let columns = try count("values", size: 4)
      var values: [Float] = []
      for _ in 0..<columns { values.append(Float(bitPattern: try word()) / calls) }
      guard values.allSatisfy({ $0.isFinite && $0 >= 0 }) else { throw wrong("'\(name)' has values that are no means") }
      means[name] = values
    }
    if bytes.count - position >= 8 {
      chunkCount = Int(Int32(bitPattern: try word()))
      let length = try count("bytes of a path", size: 1)
      datasets = [String(decoding: bytes[position..<(position + length)], as: UTF8.self)]
    }
  }

  private func matrices(of name: String) -> Int { max(1, expertCounts[name] ?? 1) }

  /// The file in GGUF form, whole.
  /// - Parameter tokens: how many tokens the means are of.
  package func file(tokens: Int, chunkSize: Int) -> [UInt8] {
    var metadata: GGUFMetadata = [
      "general.type": .string("imatrix"), "imatrix.datasets": .strings(datasets),
      "imatrix.chunk_count": .uint32(UInt32(clamping: chunkCount)),
    ]
    metadata["imatrix.chunk_size"] = .uint32(UInt32(clamping: chunkSize))
    let names = means.keys.sorted()
    let specifications = names.flatMap { name in
      [
        GGUFSpecification(name: name + Self.counts, type: .f32, shape: [matrices(of: name), 1]),
        GGUFSpecification(
          name: name + Self.sums, type: .f32,
          shape: [matrices(of: name), (means[name]?.count ?? 0) / matrices(of: name)]),
      ]
    }
    let layout = GGUFLayout(specifications, metadata: metadata)
    var bytes = layout.head + [UInt8](repeating: 0, count: layout.fileSize - layout.head.count)
    func put(_ values: [Float], _ name: String) {
      var encoded: [UInt8] = []
      let count = encodeElements(values, as: .f32, into: &encoded)
      guard let start = layout.offsets[name] else { return }
      bytes.replaceSubrange(start..<(start + count), with: encoded[..<count])
    }
    for name in names {
      put([Float](repeating: Float(tokens), count: matrices(of: name)), name + Self.counts)
      put((means[name] ?? []).map { $0 * Float(tokens) }, name + Self.sums)
    }
    return bytes
  }
}
