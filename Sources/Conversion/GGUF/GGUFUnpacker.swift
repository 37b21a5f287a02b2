import Checkpoints
import Evaluation
import Kernels
import Models
import OrderedCollections
import Packing
import Quantization
import Reports
import SystemPackage
import Tokenizers

/// Turns a GGUF file into an ordinary checkpoint: decoded weights under Hugging Face's names, the configuration that its
/// metadata tell, and its tokenizer. Blocks become F32, which holds their values exactly; plain numbers keep their type.
package struct GGUFUnpacker: Sendable {
  private let source: GGUFSource
  private let workers: Int

  package init(_ path: FilePath, workers: Int) throws {
    source = try GGUFSource(GGUFFile(path))
    self.workers = workers
  }

  package var path: FilePath { source.file.path }

  private static let partLength = 1 << 20

  /// Writes the folder.
  /// - Parameter onProgress: called from any thread, one call at a time; false stops the work and removes the output.
  package func run(
    into output: OutputFolder, onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> UnpackSummary {
    do {
      let tensors = source.tensorNames.map { name in
        TensorSpecification(
          name: name, type: source.storedType(of: name)?.elementType ?? .f32, shape: source.shape(of: name) ?? [])
      }
      try output.beginIfNeeded()
      try write(tensors, to: output, onProgress: onProgress)
      try output.write(Array((source.configuration.text(indent: 2) + "\n").utf8), to: SideFiles.configuration)
      if source.file.header.metadata["tokenizer.ggml.model"]?.string ?? "none" != "none" {
        let file = try GGUFTokenizer.tokenizerFile(of: source.file)
        try output.write(file.bytes, to: file.name)
      }
      try output.commit()
      return UnpackSummary(
        tensorCount: tensors.count,
        decodedCount: tensors.count { source.storedType(of: $0.name)?.isPlain == false },
        byteCount: tensors.reduce(0) { $0 + $1.byteCount })
    } catch {
      output.abandon()
      throw error
    }
  }

  private func write(
    _ tensors: [TensorSpecification], to output: OutputFolder,
    onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws {
    let layout = SafetensorsLayout(tensors, metadata: ["format": "pt"])
    if let free = output.freeBytes, free < layout.fileSize {
      throw ConversionError.cannotCreate(
        output.path.string, "the output takes \(layout.fileSize) bytes, the file system has \(free) left")
    }
    let target = try TargetFile(Checkpoint.singleName, layout: layout, in: output)
    var parts: [(tensor: TensorSpecification, elements: Range<Int>)] = []
    for tensor in tensors {
      let count = tensor.shape.reduce(1, *)
      for start in stride(from: 0, to: count, by: Self.partLength) {
        parts.append((tensor, start..<min(start + Self.partLength, count)))
      }
    }
    let list = parts
    let progress = ProgressCounter(total: tensors.reduce(0) { $0 + $1.byteCount }, report: onProgress)
    try runParallel(
      count: list.count, workers: workers,
      makeState: { (reader: source.makeReader(), values: [Float](), bytes: [UInt8]()) }
    ) { index, state in
      let (tensor, elements) = list[index]
      try state.reader.read(tensor.name, elements, into: &state.values)
      let count = encodeElements(state.values, as: tensor.type, into: &state.bytes)
      try target.write(tensor.name, offset: elements.lowerBound * tensor.type.bitWidth / 8, state.bytes, count)
      try progress.add(count)
    }
    if output.isDurable { try target.flush() }
  }
}
