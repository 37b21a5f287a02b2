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
package struct GGUFUnpacker: DenseUnpacker {
  private let gguf: GGUFSource
  private let workers: Int

  package init(_ path: FilePath, workers: Int) throws {
    gguf = try GGUFSource(GGUFFile(path))
    self.workers = workers
  }

  package var source: FilePath { gguf.file.path }

  package var files: [FilePath] { [source] }

  private var tensors: [TensorSpecification] {
    gguf.tensorNames.map { name in
      TensorSpecification(
        name: name, type: gguf.storedType(of: name)?.elementType ?? .f32, shape: gguf.shape(of: name) ?? [])
    }
  }

  private var dense: DenseFiles {
    DenseFiles(
      tensors.map { specification in
        DenseFiles.Tensor(
          specification: specification, file: Checkpoint.singleName,
          kind: gguf.storedType(of: specification.name)?.isPlain == false ? "decode" : "copy")
      }, files: [Checkpoint.singleName])
  }

  private var configuration: [UInt8] { Array((gguf.configuration.text(indent: 2) + "\n").utf8) }

  package func isWritten(at path: FilePath) -> Bool {
    dense.isWritten(at: path) && (try? readWhole(path.appending(SideFiles.configuration))) == configuration
  }

  private struct Buffers {
    var reader: any WeightReader
    var values: [Float] = []
    var bytes: [UInt8] = []
  }

  package func run(
    into output: OutputFolder, goingOnFrom earlier: [JSONValue],
    onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> UnpackSummary {
    let tensors = tensors
    do {
      try output.beginIfNeeded()
      try dense.write(
        to: output, goingOnFrom: earlier, workers: workers, onProgress: onProgress,
        makeState: { Buffers(reader: gguf.makeReader()) }
      ) { index, part, buffers, put in
        let tensor = tensors[index]
        let width = tensor.type.bitWidth / 8
        try buffers.reader.read(
          tensor.name, part.lowerBound / width..<part.upperBound / width, into: &buffers.values)
        let count = encodeElements(buffers.values, as: tensor.type, into: &buffers.bytes)
        try put(buffers.bytes, count)
      }
      try output.write(configuration, to: SideFiles.configuration)
      if gguf.file.header.metadata["tokenizer.ggml.model"]?.string ?? "none" != "none" {
        let file = try GGUFTokenizer.tokenizerFile(of: gguf.file)
        try output.write(file.bytes, to: file.name)
      }
      try output.commit()
    } catch {
      throw output.leave(error)
    }
    return UnpackSummary(
      tensorCount: tensors.count, decodedCount: tensors.count { gguf.storedType(of: $0.name)?.isPlain == false },
      byteCount: tensors.reduce(0) { $0 + $1.byteCount })
  }
}
