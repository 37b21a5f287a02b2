import Kernels
import Quantization

/// Times the kernels behind GPTQ and prints one JSON object a line. Arguments: threads, then sizes of the layers' inputs.
@main
struct KernelBenchmarks {
  static func main() throws {
    let arguments = CommandLine.arguments.dropFirst().compactMap { Int($0) }
    let workers = arguments.first ?? 2
    let sizes = arguments.count > 1 ? Array(arguments.dropFirst()) : [4096, 11008]
    let rows = 4096
    let squares = SquareProducts(size: 2048, workers: workers)
    /// The better of BLAS's, which depends on the family of processors that it found, and of ours.
    func sgemmRate() -> Double { max(rate { squares.run(byBLAS: true) }, rate { squares.run(byBLAS: false) }) }
    _ = sgemmRate()
    for isBLAS in [true, false] {
      let found = rate { squares.run(byBLAS: isBLAS) }
      print(
        #"{"benchmark": "products", "by": "\#(isBLAS ? "BLAS's sgemm" : "ours")", "family": "\#(linearAlgebraFamily())", "threads": \#(workers), "gflops": \#(rounded(found))}"#
      )
    }
    for inputs in sizes {
      let products = sgemmRate()
      print(#"{"benchmark": "sgemm", "threads": \#(workers), "gflops": \#(rounded(products))}"#)
      let updates = rate { squareRankUpdates(size: 2048, workers: workers) }
      print(#"{"benchmark": "ssyrk", "threads": \#(workers), "gflops": \#(rounded(updates))}"#)

      let tokens = 2048
      var state = UInt64(inputs)
      let x = Matrix(rows: tokens, columns: inputs)
      fill(x, &state)
      // Channels of unequal size, so that the order of columns is not the natural one.
      for row in 0..<tokens {
        x.withRows(row..<(row + 1)) { values in
          for column in 0..<inputs { values[column] *= 0.2 + Float(column * 7919 % 101) / 50 }
        }
      }
      var hessian = Hessian(dimension: inputs)
      try hessian.add(x, workers: workers)
      var seconds = try time { try hessian.add(x, workers: workers) }
      let gram = Double(inputs) * Double(inputs + 1) * Double(tokens) / seconds / 1e9
      print(
        #"{"benchmark": "hessian", "tokens": \#(tokens), "inputs": \#(inputs), "seconds": \#(rounded(seconds)), "gflops": \#(rounded(gram)), "of ssyrk": \#(rounded(gram / updates))}"#
      )

      let weight = Matrix(rows: rows, columns: inputs)
      fill(weight, &state)
      let scheme = try WeightScheme(method: .zeroPoint, bits: 4, granularity: .group(128))
      let searched = try WeightScheme(method: .zeroPoint, bits: 4, granularity: .group(128), scaleSearch: .mse)
      let variants: [(String, GPTQ)] = [
        ("original ranges", try GPTQ(scheme: scheme)),
        ("corrected ranges", try GPTQ(scheme: scheme, order: .natural, groupRanges: .corrected)),
        ("original ranges, weighted search", try GPTQ(scheme: searched)),
      ]
      let n = Double(inputs)
      for (name, gptq) in variants {
        seconds = try time {
          _ = try gptq.quantize(weight, hessian: hessian, weighsRanges: true, workers: workers)
        }
        let speed = (2 / 3 * n * n * n + Double(rows) * n * n) / seconds / 1e9
        let best = max(products, sgemmRate())
        print(
          #"{"benchmark": "gptq", "variant": "\#(name)", "rows": \#(rows), "inputs": \#(inputs), "seconds": \#(rounded(seconds)), "gflops": \#(rounded(speed)), "of sgemm": \#(rounded(speed / best))}"#
        )
      }
      var factor = dampedLowerTriangle(
        of: hessian.sum, order: (0..<Int32(inputs)).map { $0 }, factor: 1e-3, damping: 0.1, workers: workers)
      seconds = time { _ = factorCholesky(factor, workers: workers) }
      factor = Matrix(rows: 0, columns: 0)
      let cholesky = n * n * n / 3 / seconds / 1e9
      print(
        #"{"benchmark": "cholesky", "inputs": \#(inputs), "seconds": \#(rounded(seconds)), "gflops": \#(rounded(cholesky)), "of sgemm": \#(rounded(cholesky / products))}"#
      )
    }
  }

  static func time(_ work: () throws -> Void) rethrows -> Double {
    let clock = ContinuousClock()
    let elapsed = try clock.measure(work)
    return Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18
  }

  /// The best of three, in 10⁹ operations a second.
  static func rate(_ work: () -> Int) -> Double {
    var best = 0.0
    for _ in 0..<3 {
      var operations = 0
      let seconds = time { operations = work() }
      best = max(best, Double(operations) / seconds / 1e9)
    }
    return best
  }

  static func rounded(_ value: Double) -> Double { (value * 1000).rounded() / 1000 }

  /// Uniform numbers, from a linear congruential generator (Knuth, MMIX).
  static func fill(_ matrix: Matrix, _ state: inout UInt64) {
    var next = state
    matrix.withRows(0..<matrix.rows) { values in
      for index in 0..<values.count {
        next = next &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        values[index] = (Float(next >> 40) / Float(1 << 24) - 0.5) * 0.1
      }
    }
    state = next
  }
}
