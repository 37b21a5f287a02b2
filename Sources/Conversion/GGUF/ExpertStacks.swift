import Checkpoints
import OrderedCollections
import Packing

/// Gathers the matrices of experts that a GGUF file has in one tensor, from tensors of one expert each or of all of them.
struct ExpertStacks {
  struct Stack {
    let place: GGUFArchitecture.ExpertPlace
    /// `[experts, outputs, inputs]`.
    let shape: [Int]
    /// Of each expert the tensor, and its first row there.
    let matrices: [(name: String, firstRow: Int)]
  }

  private struct Gathered {
    let place: GGUFArchitecture.ExpertPlace
    let rows: Int
    let columns: Int
    var matrices: [(name: String, firstRow: Int)?]
  }

  private let count: Int
  private let file: String
  private var stacks: OrderedDictionary<String, Gathered> = [:]

  /// - Parameters:
  ///   - count: of the experts of a block.
  ///   - file: for messages.
  init(count: Int, file: String) {
    self.count = count
    self.file = file
  }

  /// - Parameter places: of the tensor; at least one.
  mutating func add(
    _ name: String, _ shape: [Int], _ places: [GGUFArchitecture.ExpertPlace]
  ) throws(GGUFError) {
    for place in places {
      let (matrix, experts) = place.expert == nil ? (Array(shape.dropFirst()), 0..<count) : (shape, 0..<1)
      guard matrix.count == 2, matrix.allSatisfy({ $0 > 0 }), matrix[0] % place.shares == 0,
        place.expert != nil || shape[0] == count
      else {
        let expected = place.expert == nil ? "matrices of \(count) experts" : "a matrix"
        throw GGUFError(file: file, tensor: name, .shape(shape, expected: expected))
      }
      let rows = matrix[0] / place.shares
      var stack =
        stacks[place.name]
        ?? Gathered(place: place, rows: rows, columns: matrix[1], matrices: Array(repeating: nil, count: count))
      guard stack.rows == rows, stack.columns == matrix[1] else {
        throw GGUFError(
          file: file, tensor: name,
          .shape(shape, expected: "that of the block's other experts, [\(stack.rows), \(stack.columns)]"))
      }
      for index in experts {
        let expert = place.expert ?? index
        guard expert < count, stack.matrices[expert] == nil else {
          throw GGUFError(file: file, tensor: name, .shape(shape, expected: "one of \(count) experts, once"))
        }
        stack.matrices[expert] = (name, index * matrix[0] + place.share * rows)
      }
      stacks[place.name] = stack
    }
  }

  /// - Throws: where an expert is missing.
  func complete() throws(GGUFError) -> [Stack] {
    var result: [Stack] = []
    for (name, stack) in stacks {
      let matrices = stack.matrices.compactMap(\.self)
      guard matrices.count == count else {
        throw GGUFError(file: file, tensor: name, .missingExperts(count - matrices.count))
      }
      result.append(Stack(place: stack.place, shape: [count, stack.rows, stack.columns], matrices: matrices))
    }
    return result
  }
}
