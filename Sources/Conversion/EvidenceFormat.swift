import Calibration
import Checkpoints
import Kernels
import OrderedCollections
import Quantization
import SystemPackage

/// What an evidence file says of itself, apart from the sums. See Docs/Calibration.md for the format.
package struct EvidenceHeader: Hashable, Sendable {
  static let formatName = "convert-model evidence"
  static let version = 1

  /// See `Checkpoint.identity`.
  package let model: String
  /// `model_type` of the configuration.
  package let modelType: String
  /// The magnitude from which a value was counted as an outlier.
  package let threshold: Float
  /// What the evidence was gathered on: one record of windows each.
  package let texts: [JSONValue]
  package let inputs: [LinearInput]
  /// Whether Σ xᵀ·x of every input is there.
  package let hasHessians: Bool

  package init(
    model: String, modelType: String, threshold: Float, texts: [JSONValue], inputs: [LinearInput], hasHessians: Bool
  ) {
    self.model = model
    self.modelType = modelType
    self.threshold = threshold
    self.texts = texts
    self.inputs = inputs
    self.hasHessians = hasHessians
  }

  // MARK: Tensors

  /// The sums of one input.
  enum Part: String, CaseIterable {
    case magnitudeSums = "magnitude_sums"
    case squareSums = "square_sums"
    case largestMagnitudes = "largest_magnitudes"
    case outlierTokens = "outlier_tokens"
    case gram

    var type: ElementType {
      switch self {
      case .magnitudeSums, .squareSums: .f64
      case .largestMagnitudes, .gram: .f32
      case .outlierTokens: .i64
      }
    }
  }

  /// The tensor with the number of tokens of each input.
  static let tokens = "tokens"

  static func name(_ part: Part, ofInput index: Int) -> String { "input.\(index).\(part.rawValue)" }

  var specifications: [TensorSpecification] {
    [TensorSpecification(name: Self.tokens, type: .i64, shape: [inputs.count])]
      + inputs.indices.flatMap { specifications(ofInput: $0) }
  }

  func specifications(ofInput index: Int) -> [TensorSpecification] {
    let size = inputs[index].dimension
    return Part.allCases.filter { hasHessians || $0 != .gram }.map { part in
      TensorSpecification(
        name: Self.name(part, ofInput: index), type: part.type, shape: part == .gram ? [size, size] : [size])
    }
  }

  // MARK: Metadata

  private enum Key {
    static let format = "format"
    static let version = "version"
    static let model = "model_sha256"
    static let modelType = "model_type"
    static let threshold = "outlier_threshold"
    static let texts = "texts"
    static let inputs = "inputs"
    static let hashes = "sha256"
  }

  /// - Parameter hashes: of every tensor; zeros stand for those that are not known yet, so that lengths stay.
  func metadata(hashes: OrderedDictionary<String, String>) -> OrderedDictionary<String, String> {
    let unknown = String(repeating: "0", count: 64)
    let table = OrderedDictionary(
      specifications.map { ($0.name, JSONValue.string(hashes[$0.name] ?? unknown)) }, uniquingKeysWith: { $1 })
    return [
      Key.format: Self.formatName, Key.version: "\(Self.version)", Key.model: model, Key.modelType: modelType,
      Key.threshold: "\(threshold)", Key.texts: JSONValue.array(texts).text(),
      Key.inputs: JSONValue.array(inputs.map(\.json)).text(), Key.hashes: JSONValue.object(table).text(),
    ]
  }

  /// Reads and validates the header of a file, and that it has the tensors that it speaks of.
  /// - Returns: the header, and the SHA-256 of each tensor.
  static func read(_ file: SafetensorsFile) throws(EvidenceFileError) -> (
    header: EvidenceHeader, hashes: [String: String]
  ) {
    let path = file.path.string
    let metadata = file.header.metadata
    func text(_ key: String) throws(EvidenceFileError) -> String {
      guard let value = metadata[key] else { throw EvidenceFileError(path, .missing(key)) }
      return value
    }
    func json(_ key: String) throws(EvidenceFileError) -> JSONValue {
      do {
        return try JSONParser.parse(Array(try text(key).utf8))
      } catch let error as EvidenceFileError {
        throw error
      } catch {
        throw EvidenceFileError(path, .malformed(key, "\(error)"))
      }
    }
    guard metadata[Key.format] == formatName else { throw EvidenceFileError(path, .notEvidence) }
    let version = try text(Key.version)
    guard version == "\(Self.version)" else { throw EvidenceFileError(path, .version(version)) }
    guard let threshold = Float(try text(Key.threshold)), threshold > 0, threshold.isFinite else {
      throw EvidenceFileError(path, .malformed(Key.threshold, "expected a positive number"))
    }
    guard let texts = try json(Key.texts).array else {
      throw EvidenceFileError(path, .malformed(Key.texts, "expected a list"))
    }
    guard let list = try json(Key.inputs).array else {
      throw EvidenceFileError(path, .malformed(Key.inputs, "expected a list"))
    }
    var inputs: [LinearInput] = []
    for item in list {
      guard let input = LinearInput(item) else {
        throw EvidenceFileError(
          path, .malformed(Key.inputs, "expected objects with 'features' and 'layers', each with a 'weight'"))
      }
      inputs.append(input)
    }
    let layers = inputs.flatMap(\.layers)
    guard Set(layers.map(\.identifier)).count == layers.count else {
      throw EvidenceFileError(path, .malformed(Key.inputs, "a layer is named twice"))
    }
    var hashes: [String: String] = [:]
    for (name, value) in try json(Key.hashes).object ?? [:] { hashes[name] = value.string }
    let found = Dictionary(file.header.tensors.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    let header = EvidenceHeader(
      model: try text(Key.model), modelType: try text(Key.modelType), threshold: threshold, texts: texts,
      inputs: inputs, hasHessians: found[name(.gram, ofInput: 0)] != nil)
    let expected = header.specifications
    for tensor in expected {
      guard let entry = found[tensor.name] else { throw EvidenceFileError(path, .missingTensor(tensor.name)) }
      guard entry.type == tensor.type, entry.shape == tensor.shape else {
        throw EvidenceFileError(
          path,
          .wrongTensor(
            tensor.name, found: "\(entry.type.rawValue) \(entry.shape)",
            expected: "\(tensor.type.rawValue) \(tensor.shape)"))
      }
      guard hashes[tensor.name] != nil else { throw EvidenceFileError(path, .noHash(tensor.name)) }
    }
    guard found.count == expected.count else {
      let known = Set(expected.map(\.name))
      let odd = found.keys.filter { !known.contains($0) }.min() ?? ""
      throw EvidenceFileError(path, .unknownTensor(odd))
    }
    return (header, hashes)
  }
}

extension EvidencedLayer {
  /// One text for each layer: what two entries must not share.
  fileprivate var identifier: String { "\(weight)\n\(expert ?? -1)" }

  fileprivate var json: JSONValue {
    var fields: OrderedDictionary<String, JSONValue> = ["weight": .string(weight)]
    if let expert { fields["expert"] = .integer(expert) }
    return .object(fields)
  }

  fileprivate init?(_ json: JSONValue) {
    guard let weight = json["weight"]?.string else { return nil }
    var expert: Int?
    if let value = json["expert"] {
      guard let index = value.integer, (0..<1 << 32).contains(index) else { return nil }
      expert = index
    }
    self.init(weight: weight, expert: expert)
  }
}

extension LinearInput {
  fileprivate var json: JSONValue {
    ["features": .integer(dimension), "layers": .array(layers.map(\.json))]
  }

  fileprivate init?(_ json: JSONValue) {
    // So narrow that the product of two of them is a count.
    guard let features = json["features"]?.integer, (1..<1 << 28).contains(features),
      let list = json["layers"]?.array, !list.isEmpty
    else { return nil }
    let layers = list.compactMap { EvidencedLayer($0) }
    guard layers.count == list.count else { return nil }
    self.init(layers: layers, dimension: features)
  }
}
