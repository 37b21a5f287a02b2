import Kernels
import Synchronization

/// What is summed of each quantized tensor while it is written, before its codes are packed: what `verify --deep` compares
/// the bytes on disk with, apart from their hashes.
final class WrittenSums: Sendable {
  struct Sums: Hashable, Sendable {
    var codes = 0
    var loss = LossSums()
  }

  fileprivate struct Tensor {
    var codes = 0
    /// Of each tile, by its first element, until all are there.
    var tiles: [Int: LossSums] = [:]
    var elements = 0
    var total: LossSums?
  }

  private let tensors = Mutex<[String: Tensor]>([:])

  /// Adds a tile, before any of its bytes is written; tiles may come in any order, each once.
  /// - Parameters:
  ///   - first: the tile's first element.
  ///   - count: elements of the whole tensor.
  func add(_ codes: Span<UInt8>, _ loss: LossSums, of tensor: String, first: Int, count: Int) {
    let (sum, length) = (codeSum(codes), codes.count)
    tensors.withLock { tensors in
      tensors[tensor, default: Tensor()].add(sum, loss, first: first, length: length, of: count)
    }
  }

  /// Of the tensors of which all tiles have been added.
  var values: [String: Sums] {
    tensors.withLock { tensors in
      tensors.compactMapValues { tensor in tensor.total.map { Sums(codes: tensor.codes, loss: $0) } }
    }
  }

  /// Of one tensor, if all its tiles have been added.
  subscript(tensor: String) -> Sums? {
    tensors.withLock { tensors in
      tensors[tensor].flatMap { tensor in tensor.total.map { Sums(codes: tensor.codes, loss: $0) } }
    }
  }
}

extension WrittenSums.Tensor {
  fileprivate mutating func add(_ sum: Int, _ loss: LossSums, first: Int, length: Int, of count: Int) {
    codes += sum
    tiles[first] = loss
    elements += length
    guard elements >= count else { return }
    // In the order of the tiles, so that no number of threads changes the last digit.
    var sums = LossSums()
    for (_, tile) in tiles.sorted(by: { $0.key < $1.key }) { sums += tile }
    total = sums
    tiles = [:]
  }
}
