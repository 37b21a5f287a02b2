import Kernels

/// Quantization of the scales themselves (QLoRA, arXiv 2305.14314, section 3): the mean is subtracted, and blocks of
/// 256 scales become 8-bit codes of a dynamic data type with one float32 scale per block.
///
/// Codes equal bitsandbytes' on CPU, which first rounds the quotient to a grid of 65,536 positions in −1…1 and takes the
/// level nearest to that. A block whose scales all equal the mean has codes and
/// block scale zero. Reconstructed scales may be a little below zero where the exact ones are far below the mean.
package enum DoubleQuantization {
  package static let blockSize = 256

  /// The 256 levels, ascending, of the signed dynamic 8-bit type (arXiv 1511.04561; as bitsandbytes uses it).
  ///
  /// A decade 10^(i−6), i = 0…6, has 2^i levels of either sign: the middles of 2^i equal steps from 0.1 to 1. Zero and 1
  /// complete them; −1 is not among them.
  package static let levels: [Float] = {
    var positive: [Float] = []
    var decade: Float = 1e-6
    for exponent in 0..<7 {
      let steps = 1 << exponent
      let bounds = evenlySpaced(steps)
      decade = powersOfTen[exponent]
      for step in 0..<steps { positive.append(decade * ((bounds[step] + bounds[step + 1]) / 2)) }
    }
    return (positive.map { -$0 } + [0] + positive + [1]).sorted()
  }()

  private static let powersOfTen: [Float] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]

  /// `steps + 1` bounds from 0.1 to 1, each rounded once, the upper half counted from above as torch does.
  private static func evenlySpaced(_ steps: Int) -> [Float] {
    let step = (1 - Float(0.1)) / Float(steps)
    return (0...steps).map { index in
      index < (steps + 1) / 2
        ? Float(0.1).addingProduct(step, Float(index)) : Float(1).addingProduct(-step, Float(steps - index))
    }
  }

  /// Codes and block scales of some scales, which begin on a block boundary.
  /// - Parameters:
  ///   - scales: the exact scales; replaced by what a reader will reconstruct.
  ///   - offset: the mean of the largest magnitudes of all blocks of the tensor: of the scales themselves, unless a
  ///     search has shrunk them.
  static func quantize(
    _ scales: inout [Float], offset: Float, codes: inout [UInt8], blockScales: inout [Float]
  ) {
    let codebook = NamedCodebook.dynamic8.codebook
    codes.resize(to: scales.count)
    blockScales.removeAll(keepingCapacity: true)
    for index in scales.indices { scales[index] -= offset }
    for start in stride(from: 0, to: scales.count, by: blockSize) {
      let block = start..<min(start + blockSize, scales.count)
      let largest = absoluteMaximum(scales.span.extracting(block))
      blockScales.append(largest)
      let inverse = largest > 0 ? 1 / largest : 0
      for index in block {
        codes[index] = inverse > 0 ? codebook.code(nearest: gridPosition(scales[index] * inverse)) : 0
      }
    }
    for index in scales.indices {
      scales[index] = reconstruct(code: codes[index], blockScale: blockScales[index / blockSize], offset: offset)
    }
  }

  /// The nearest of 65,536 positions from −1 to 1.
  private static func gridPosition(_ quotient: Float) -> Float {
    let share = (min(max(quotient, -1), 1) + 1) * 0.5
    let position = Float(0.5).addingProduct(share, 65535).rounded(.towardZero)
    return 2 * position / 65535 - 1
  }

  /// The scale that a reader reconstructs.
  package static func reconstruct(code: UInt8, blockScale: Float, offset: Float) -> Float {
    levels[Int(code)] * blockScale + offset
  }
}
