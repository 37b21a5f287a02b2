/// When an expert has seen too few tokens to be calibrated on them alone.
package enum MixtureRule {
  /// A quarter as many tokens as inputs: with fewer, most directions of the input space were never seen.
  package static func leastTokens(inputs: Int) -> Int { max(1, inputs / 4) }
}
