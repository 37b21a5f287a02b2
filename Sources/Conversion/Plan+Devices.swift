import Checkpoints
import Packing

extension Plan {
  /// Whether vLLM can split the model over so many devices, as `check --tensor-parallel` says of what is written.
  /// - Throws: the first layer that does not divide, before any work.
  package func requireSplit(over parts: Int) throws(ConversionError) {
    guard recipe.layout != nil else { return }
    do {
      try FusedLayers.checkHeads(source.configuration, parts: parts)
      for tensor in tensors {
        guard let layout = tensor.layout, let module = Self.module(of: tensor.source.name) else { continue }
        try FusedLayers.checkSplit(
          module, rows: layout.rows, columns: layout.columns, groupLength: layout.groupLength, parts: parts)
      }
    } catch {
      throw .layout(error)
    }
  }
}
