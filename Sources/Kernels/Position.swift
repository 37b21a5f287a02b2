/// The index along each dimension of an element of the row-major flattened tensor.
package func position(of element: Int, in shape: [Int]) -> [Int] {
  var rest = element
  var index: [Int] = []
  for size in shape.reversed() {
    index.append(size > 0 ? rest % size : 0)
    rest /= max(size, 1)
  }
  return index.reversed()
}
