import Kernels
import Synchronization

/// The sum of the codes of each quantized tensor, taken before they are packed: what `verify --deep` compares the codes
/// that it unpacks with, apart from the hashes of bytes.
final class CodeSums: Sendable {
  private let sums = Mutex<[String: Int]>([:])

  /// Adds the codes of a tile, before any of its bytes is written; tiles may come in any order, each once.
  func add(_ codes: Span<UInt8>, of tensor: String) {
    let sum = codeSum(codes)
    sums.withLock { $0[tensor, default: 0] += sum }
  }

  /// Of the tensors of which all tiles have been added.
  var values: [String: Int] { sums.withLock { $0 } }
}
