import Checkpoints
import Kernels
import OrderedCollections
import Packing
import Quantization

/// The options of a scheme as a user gives them; what is nil takes the method's usual value.
package struct SchemeOptions: Hashable, Sendable {
  package var method: Quantization.Method?
  package var bits: Int?
  package var granularity: Granularity?
  package var scaleType: ElementType?
  package var scaleSearch: ScaleSearch?
  package var doubleQuantization: Bool?
  package var isSymmetric: Bool?
  package var groupOrder: GroupOrder?

  package init() {}

  package func scheme() throws(SchemeError) -> WeightScheme {
    try WeightScheme(
      method: method ?? .nf4, bits: bits, granularity: granularity, scaleType: scaleType,
      scaleSearch: scaleSearch, doubleQuantization: doubleQuantization ?? false, isSymmetric: isSymmetric,
      groupOrder: groupOrder)
  }

  /// The search that measures best with the importance of columns; nil for methods that have their own.
  fileprivate func bestWeighedSearch(for layout: RuntimeLayout?) -> ScaleSearch? {
    let takesNegative = layout?.rules.allowsNegativeScales ?? true
    return switch fitted(to: layout).method ?? .nf4 {
    case .absmax: granularity == .tensor || !takesNegative ? .mse : .signedMSE
    case .zeroPoint, .nf4, .fp4: .mse
    default: nil
    }
  }

  /// These options changed by others. A different method starts from its own usual values.
  package func changed(by changes: SchemeOptions) -> SchemeOptions {
    var result = changes.method.map { $0 != (method ?? .nf4) } ?? false ? SchemeOptions() : self
    result.method = changes.method ?? result.method ?? method
    result.bits = changes.bits ?? result.bits
    result.granularity = changes.granularity ?? result.granularity
    result.scaleType = changes.scaleType ?? result.scaleType
    result.scaleSearch = changes.scaleSearch ?? result.scaleSearch
    result.doubleQuantization = changes.doubleQuantization ?? result.doubleQuantization
    result.isSymmetric = changes.isSymmetric ?? result.isSymmetric
    result.groupOrder = changes.groupOrder ?? result.groupOrder
    return result
  }
}

extension SchemeOptions {
  /// The options with what a layout's runtimes are usually given, and no negative scales where they take none.
  package func fitted(to layout: RuntimeLayout?) -> SchemeOptions {
    guard let layout else { return self }
    var result = self
    if method == nil {
      switch layout {
      case .packQuantized, .intQuantized: result.method = .absmax
      case .gptq, .gptqV2: result.method = .gptq
      case .awq: result.method = .awq
      case .mlx: result.method = .zeroPoint
      case .bitsandbytes, .floatQuantized, .floatQuantizedWeights, .mxfp4, .nvfp4, .mlxMXFP4: break
      }
      if layout != .intQuantized, result.method != nil {
        result.bits = bits ?? 4
        result.granularity = granularity ?? .group(layout == .mlx ? 64 : 128)
      }
    }
    let isInt8 =
      (result.method == .absmax || result.method == .llmInt8) && (layout == .intQuantized || layout == .bitsandbytes)
    if isInt8 { result.scaleType = scaleType ?? .f32 }
    if result.method?.isCalibrated ?? false, !layout.rules.allowsNegativeScales {
      result.scaleSearch = scaleSearch ?? .mse
    }
    return result
  }
}

extension RuntimeLayout {
  /// The floats of a layout that has its own.
  var floatRounding: FloatRounding? {
    switch self {
    case .floatQuantized, .floatQuantizedWeights: .float8
    case .mxfp4, .mlxMXFP4: .mxfp4
    case .nvfp4: .nvfp4
    default: nil
    }
  }
}

/// What a conversion is to do with every tensor.
package struct Recipe: Hashable, Sendable {
  /// A different scheme for the tensors whose names match.
  package struct Override: Hashable, Sendable {
    package let pattern: String
    package internal(set) var options: SchemeOptions

    package init(pattern: String, options: SchemeOptions) {
      self.pattern = pattern
      self.options = options
    }
  }

  /// What to do with a tensor that holds infinities or NaN.
  package enum NonFinitePolicy: String, CaseIterable, Hashable, Sendable {
    case refuse
    /// Leave the tensor as it is.
    case keep
  }

  package var options = SchemeOptions()
  /// The runtime whose layout is written; our own format if nil.
  package var layout: RuntimeLayout?
  package var include: [String] = []
  package var exclude: [String] = []
  /// The last one that matches a tensor counts.
  package var overrides: [Override] = []
  package var nonFinite = NonFinitePolicy.refuse
  package var calibration = CalibrationOptions()
  /// How inputs are scaled before their layers are quantized, if it was asked for.
  package var scaling: Scaling?

  package init() {}

  /// Whether a tensor may ask for a method that runs the model.
  package var needsCalibration: Bool {
    inputScaling != nil || methods.contains(where: \.isCalibrated)
  }

  /// Whether results depend on products of matrices: where the model runs, or evidence of a run is used.
  package var runsModel: Bool { needsCalibration || needsStatistics }

  /// Whether a tensor may ask for learned rounding.
  package var needsLearning: Bool {
    methods.contains(.learned)
  }

  /// Whether a tensor may be quantized tile by tile by what is known of its inputs: E[x²], for a search for scales, or
  /// which features are outliers.
  package var needsStatistics: Bool {
    schemes.contains { scheme in
      // A runtime's layout has no place for outlier columns.
      scheme.method.needsStatistics && layout == nil
        || calibration.weighsScales && inputScaling == nil && !scheme.method.isCalibrated && scheme.scaleSearch != .none
    }
  }

  /// Has searches for scales weigh errors by E[x²] of the inputs, and names the best search where none was chosen.
  /// - Throws: where no tensor would be quantized by evidence.
  package mutating func weighScales() throws(RecipeError) {
    calibration.weighsScales = true
    let isChosen = options.scaleSearch != nil
    if !isChosen { options.scaleSearch = options.bestWeighedSearch(for: layout) }
    for index in overrides.indices where overrides[index].options.scaleSearch == nil {
      let merged = options.changed(by: overrides[index].options)
      guard !isChosen || merged.scaleSearch == nil else { continue }
      overrides[index].options.scaleSearch = merged.bestWeighedSearch(for: layout)
    }
    guard needsCalibration || needsStatistics else { throw .evidenceUnused }
  }

  /// Every scheme that a tensor may get; options that make none are left out.
  private var schemes: [WeightScheme] {
    layout?.floatRounding == nil ? allOptions.compactMap { try? $0.scheme() } : []
  }

  private var allOptions: [SchemeOptions] {
    ([options] + overrides.map { options.changed(by: $0.options) }).map { $0.fitted(to: layout) }
  }

  /// How inputs are scaled: as asked, or as AWQ does it.
  package var inputScaling: Scaling? { scaling ?? (methods.contains(.awq) ? .activationAware : nil) }

  /// Whether a method needs evidence layer after layer, not of a block at once.
  var needsLayerEvidence: Bool { methods.contains(.gptq) || needsLearning }

  private var methods: [Quantization.Method] { allOptions.compactMap(\.method) }

  /// What is to become of a tensor.
  package enum Decision: Hashable, Sendable {
    case quantize(WeightScheme)
    /// To the floats of the layout.
    case round(FloatRounding)
    case keep(reason: String)
  }

  package func decision(for entry: TensorEntry) throws(RecipeError) -> Decision {
    let role = TensorRole(entry)
    if let pattern = exclude.first(where: { matches(entry.name, pattern: $0) }) {
      return .keep(reason: "excluded by '\(pattern)'")
    }
    let override = overrides.last { matches(entry.name, pattern: $0.pattern) }
    let isAsked = override != nil || include.contains { matches(entry.name, pattern: $0) }
    if let reason = role.reasonToKeep, role.isAlwaysKept || !isAsked { return .keep(reason: reason) }
    do throws(SchemeError) {
      if let layout, let format = layout.floatRounding {
        if let own = (override?.options ?? options).method { throw SchemeError.layoutHasNoScheme(own, layout.rawValue) }
        return .round(format)
      }
      return .quantize(try (override.map { options.changed(by: $0.options) } ?? options).fitted(to: layout).scheme())
    } catch {
      throw .scheme(pattern: override?.pattern, error)
    }
  }

  /// Patterns that match none of the names, most likely by mistake.
  package func unmatchedPatterns(among names: [String]) -> [String] {
    (include + exclude + overrides.map(\.pattern)).filter { pattern in
      !names.contains { matches($0, pattern: pattern) }
    }
  }

  package var json: JSONValue {
    func fields(_ options: SchemeOptions) -> OrderedDictionary<String, JSONValue> {
      var fields: OrderedDictionary<String, JSONValue> = [:]
      if let method = options.method { fields["method"] = .string(method.rawValue) }
      if let bits = options.bits { fields["bits"] = .integer(bits) }
      if let granularity = options.granularity { fields["group_size"] = granularity.json }
      if let type = options.scaleType { fields["scale_type"] = .string(type.rawValue) }
      if let search = options.scaleSearch { fields["scale_search"] = .string(search.rawValue) }
      if let nested = options.doubleQuantization { fields["double_quantization"] = .bool(nested) }
      if let symmetric = options.isSymmetric { fields["symmetric"] = .bool(symmetric) }
      if let order = options.groupOrder { fields["group_order"] = .string(order.rawValue) }
      return fields
    }
    var members = (try? options.fitted(to: layout).scheme())?.json ?? fields(options)
    if let layout { members["layout"] = .string(layout.rawValue) }
    members["include"] = .array(include.map { .string($0) })
    members["exclude"] = .array(exclude.map { .string($0) })
    members["overrides"] = .array(
      overrides.map { override in
        let pattern: OrderedDictionary<String, JSONValue> = ["pattern": .string(override.pattern)]
        return .object(pattern.merging(fields(override.options)) { $1 })
      })
    members["allow_nonfinite"] = .string(nonFinite.rawValue)
    if needsCalibration || needsStatistics {
      members["calibration"] = calibration.json(usesLayerEvidence: needsLayerEvidence)
    }
    if let inputScaling { members["scaling"] = inputScaling.json }
    if needsLearning { members["learning"] = calibration.learning.json }
    return .object(members)
  }
}

/// A recipe that cannot be followed.
package enum RecipeError: Error, Hashable, CustomStringConvertible {
  case scheme(pattern: String?, SchemeError)
  case unmatched([String])
  case evidenceUnused
  case scalingNeedsModel
  case scalingBeforeLearning
  case tuningNeedsSteps
  case scaling(String, method: Quantization.Method)
  case scalesAlready(method: Quantization.Method)

  package var description: String {
    switch self {
    case .scheme(let pattern, let error): (pattern.map { "override '\($0)': " } ?? "") + error.description
    case .scalingBeforeLearning:
      "scaling of inputs (--scaling, awq) does not go with learned, which compares with the model as it is: leave one out"
    case .tuningNeedsSteps:
      "--tune-norms changes norms and biases by gradient steps of learned rounding: give -m learned, and --iterations or"
        + " --distill"
    case .scalingNeedsModel:
      "awq and --scaling fold scales into the model while it runs, which evidence from a file cannot stand in for: give"
        + " --calibration, or take gptq, absmax or zero-point"
    case .evidenceUnused:
      "calibration text or evidence is given, but nothing in this recipe uses it: hqq chooses its own ranges,"
        + " layouts of floats have theirs, and --scale-search none weighs nothing; leave it out, or choose another method or search"
    case .scaling(let name, let method):
      "scaling '\(name)' goes in front of absmax and zero-point in rows or groups, gptq and awq; \(method.rawValue) with"
        + " these options does not take it"
    case .scalesAlready(let method):
      "\(method.rawValue) is a scaling itself, followed by rounding: leave out --scaling, or take absmax, zero-point or gptq"
    case .unmatched(let patterns):
      "no tensor matches \(patterns.map { "'\($0)'" }.joined(separator: ", ")); `convert-model inspect` lists the names"
    }
  }
}

extension WeightScheme {
  /// The scheme with every value spelled out, for the manifest.
  package var json: OrderedDictionary<String, JSONValue> {
    var fields: OrderedDictionary<String, JSONValue> = [
      "method": .string(method.rawValue), "bits": .integer(bits), "group_size": granularity.json,
    ]
    if !doubleQuantization { fields["scale_type"] = .string(scaleType.rawValue) }
    fields["scale_search"] = .string(scaleSearch.rawValue)
    fields["double_quantization"] = .bool(doubleQuantization)
    if method.isCalibrated { fields["symmetric"] = .bool(isSymmetric) }
    if groupOrder != .columns { fields["group_order"] = .string(groupOrder.rawValue) }
    return fields
  }
}

extension Scaling {
  fileprivate var json: JSONValue {
    switch self {
    case .activationAware: ["method": .string(name)]
    case .smooth(let strength): ["method": .string(name), "strength": strength.map { .real($0) } ?? "search"]
    }
  }
}

extension Granularity {
  fileprivate var json: JSONValue {
    switch self {
    case .tensor: "tensor"
    case .row: "row"
    case .group(let size): .integer(size)
    }
  }
}
