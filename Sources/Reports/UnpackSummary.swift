import Checkpoints

/// What unpacking wrote.
package struct UnpackSummary: Hashable, Sendable {
  package let tensorCount: Int
  package let decodedCount: Int
  package let byteCount: Int

  package init(tensorCount: Int, decodedCount: Int, byteCount: Int) {
    self.tensorCount = tensorCount
    self.decodedCount = decodedCount
    self.byteCount = byteCount
  }

  package func text(path: String) -> String {
    "\(path): \(Figures.count(tensorCount, "tensor")), \(decodedCount) of them decoded, \(Figures.bytes(byteCount))"
  }

  package func json(path: String) -> JSONValue {
    [
      "path": .string(path), "tensors": .integer(tensorCount), "decoded": .integer(decodedCount),
      "tensor_bytes": .integer(byteCount),
    ]
  }
}
