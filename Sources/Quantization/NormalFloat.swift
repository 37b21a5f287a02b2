/// NF4, the 4-bit NormalFloat of QLoRA (arXiv 2305.14314, section 3 and appendix E).
///
/// Its 16 levels are quantiles of the standard normal distribution at evenly spaced probabilities, seven below zero and
/// eight above, scaled to −1…1; zero is a level of its own. The tests derive them again.
package enum NormalFloat {
  /// The published values, exact in float32.
  package static let levels: [Float] = [
    -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
  ]
}
