import Checkpoints
import Testing

@Suite struct NaturalOrderTests {
  @Test func numbersCountAndLettersSpell() {
    let ordered = [
      "", "lm_head", "model.layers.0.q", "model.layers.2.q", "model.layers.2.v", "model.layers.10.q",
      "model.layers.10.q.x", "model.layers.010.r", "model.layers.99999999999999999999999.q", "model.norm", "é",
    ]
    for (position, name) in ordered.enumerated() {
      for (other, second) in ordered.enumerated() {
        #expect(name.naturallyPrecedes(second) == (position < other), "\(name) and \(second)")
      }
    }
  }
}
