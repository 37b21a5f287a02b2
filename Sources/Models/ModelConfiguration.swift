import Checkpoints
import Kernels
import OrderedCollections

/// `config.json`, read by key. A missing key takes the default that transformers gives it; null is missing.
package struct ModelConfiguration: Sendable {
  package let file: String
  private let members: OrderedDictionary<String, JSONValue>
  /// Where in the file the members are, as a prefix of their keys in messages.
  private let prefix: String

  package init(_ document: JSONValue, file: String) {
    self.init(document.object ?? [:], file: file, prefix: "")
  }

  private init(_ members: OrderedDictionary<String, JSONValue>, file: String, prefix: String) {
    self.members = members
    self.file = file
    self.prefix = prefix
  }

  /// The sizes that no value may exceed; far above every real model, far below what overflows in products.
  private static let largest = 1 << 30

  package func has(_ key: String) -> Bool { value(key) != nil }

  /// True where the key is there and says null, for the few keys whose default is not null.
  package func isNull(_ key: String) -> Bool { members[key] == .null }

  private func value(_ key: String) -> JSONValue? { members[key].flatMap { $0 == .null ? nil : $0 } }

  private func wrong(_ key: String, _ value: JSONValue, _ expected: String) -> ModelError {
    ModelError(file: file, prefix + key, .wrongValue(found: String(value.text().prefix(60)), expected: expected))
  }

  private func required<T>(_ key: String, _ value: T?, _ fallback: T?) throws(ModelError) -> T {
    guard let result = value ?? fallback else { throw ModelError(file: file, prefix + key, .missingKey) }
    return result
  }

  /// A whole number of at least `least`.
  /// - Parameter other: another name of the key, which counts where the first is absent.
  package func integer(
    _ key: String, or other: String? = nil, default fallback: Int? = nil, least: Int = 1, most: Int = largest
  ) throws(ModelError) -> Int {
    if let other, !has(key), has(other) { return try integer(other, least: least, most: most) }
    return try required(key, integerIfPresent(key, least: least, most: most), fallback)
  }

  package func integerIfPresent(_ key: String, least: Int = 1, most: Int = largest) throws(ModelError) -> Int? {
    guard let found = value(key) else { return nil }
    // Some files write whole numbers as 2048.0.
    let number = found.integer ?? found.double.flatMap { Int(exactly: $0) }
    guard let number, number >= least, number <= most else {
      throw wrong(key, found, "a whole number from \(least) to \(most)")
    }
    return number
  }

  /// A finite number.
  package func number(_ key: String, default fallback: Double? = nil) throws(ModelError) -> Double {
    try required(key, numberIfPresent(key), fallback)
  }

  package func numberIfPresent(_ key: String) throws(ModelError) -> Double? {
    guard let found = value(key) else { return nil }
    guard let number = found.double, number.isFinite else { throw wrong(key, found, "a number") }
    return number
  }

  /// A finite number above zero.
  package func positive(_ key: String, default fallback: Double? = nil) throws(ModelError) -> Double {
    let number = try number(key, default: fallback)
    guard number > 0 else { throw wrong(key, value(key) ?? .null, "a number above zero") }
    return number
  }

  package func flag(_ key: String, default fallback: Bool) throws(ModelError) -> Bool {
    guard let found = value(key) else { return fallback }
    guard let flag = found.bool else { throw wrong(key, found, "true or false") }
    return flag
  }

  package func text(_ key: String, default fallback: String? = nil) throws(ModelError) -> String {
    guard let found = value(key) else { return try required(key, nil, fallback) }
    guard let text = found.string else { throw wrong(key, found, "a string") }
    return text
  }

  package func numbers(_ key: String, count: Int) throws(ModelError) -> [Double] {
    let found = try required(key, value(key), nil)
    let numbers = found.array?.compactMap(\.double) ?? []
    guard numbers.count == count, found.array?.count == count, numbers.allSatisfy({ $0.isFinite && $0 != 0 }) else {
      throw wrong(key, found, "a list of \(count) numbers")
    }
    return numbers
  }

  package func integersIfPresent(_ key: String) throws(ModelError) -> [Int]? {
    guard let found = value(key) else { return nil }
    let numbers = found.array?.compactMap(\.integer)
    guard let numbers, numbers.count == found.array?.count else { throw wrong(key, found, "a list of whole numbers") }
    return numbers
  }

  package func textsIfPresent(_ key: String, count: Int) throws(ModelError) -> [String]? {
    guard let found = value(key) else { return nil }
    let texts = found.array?.compactMap(\.string)
    guard let texts, texts.count == count, found.array?.count == count else {
      throw wrong(key, found, "a list of \(count) strings")
    }
    return texts
  }

  /// The object under a key; nil where it is absent, null or empty.
  package func object(_ key: String) throws(ModelError) -> ModelConfiguration? {
    guard let found = value(key) else { return nil }
    guard let members = found.object else { throw wrong(key, found, "an object") }
    return members.isEmpty ? nil : ModelConfiguration(members, file: file, prefix: "\(prefix)\(key).")
  }

  /// A refusal of a value that this key has, or of its absence.
  package func refusal(of key: String, expected: String) -> ModelError {
    wrong(key, value(key) ?? .null, expected)
  }

  private static let activations: [String: Activation] = [
    "silu": .silu, "swish": .silu, "gelu": .gelu, "gelu_new": .geluTanh, "gelu_pytorch_tanh": .geluTanh,
    "gelu_fast": .geluTanh, "gelu_python_tanh": .geluTanh, "quick_gelu": .quickGelu, "relu": .relu,
    "relu2": .reluSquared,
  ]

  package func activation(_ key: String, default fallback: String) throws(ModelError) -> Activation {
    guard let activation = Self.activations[try text(key, default: fallback)] else {
      throw refusal(of: key, expected: "one of \(Self.activations.keys.sorted().joined(separator: ", "))")
    }
    return activation
  }
}
