import Checkpoints
import Kernels
import Models
import OrderedCollections
import Packing
import Quantization
import SystemPackage

/// What will become of every tensor, and where every byte of the output goes, known before any work.
package struct Plan: Sendable {
  package enum Work: Sendable {
    case quantize(TileQuantizer, Tiling)
    /// By a method that runs the model; the encoding is that of the scheme.
    case calibrate(WeightScheme)
    /// To floats of a runtime's own kind.
    case round(FloatRounding, Tiling)
    case keep(reason: String)
    /// Stored as it was, with other values: a scale is folded into it, or it is tuned.
    case rewrite(reason: String)
  }

  package struct Tensor: Sendable {
    /// A weight that is quantized has its inputs last, whichever way it is stored.
    package let source: CheckpointTensor
    package let work: Work
    package let members: [PackedFormat.Member]
    /// How a quantized weight is laid down for a runtime; nil in our own format.
    package var layout: (any WeightLayout)?
    /// Whether scales are folded into it, so that its values are not those of the source.
    package var isFolded = false
    /// Whether it is a norm or bias that gradient steps change.
    package var isTuned = false

    package var sourceByteCount: Int { source.entry.bytes.count }
    package var storedByteCount: Int { members.reduce(0) { $0 + $1.specification.byteCount } }
  }

  package struct File: Sendable {
    package let name: String
    package let layout: SafetensorsLayout
  }

  package let source: Checkpoint
  package let recipe: Recipe
  package let tensors: [Tensor]
  package let files: [File]
  /// Written to the first file.
  package let codebooks: [NamedCodebook]
  package let sideFiles: SideFiles
  /// The model, where some tensors are to be calibrated.
  package let model: Model?
  /// From which tensors are calibrated instead, without a model.
  package let evidence: (any StoredEvidence)?
  /// Weights of a calibrated method that the evidence says nothing of: they are rounded to nearest.
  package let withoutEvidence: [String]
  /// How the inputs of weights differ, by tensor name, where statistics of them were given.
  let featureStrengths: [String: FeatureStrengths]

  /// - Parameters:
  ///   - nonFinite: names of tensors with infinities or NaN, which are kept as they are.
  ///   - statistics: of the inputs of weights, by tensor name. A search for scales weighs errors by them.
  ///   - evidence: gathered before, for calibrated methods.
  /// - Throws: `ConversionError`, `RecipeError`, and `EvidenceFileError` for evidence that calibrates nothing.
  package init(
    converting source: Checkpoint, recipe: Recipe, nonFinite: Set<String> = [],
    statistics: [String: FeatureStatistics] = [:], evidence: (any StoredEvidence)? = nil
  ) throws {
    if try PackedCheckpoint.isPacked(source.folder) || LayoutCheckpoint(source) != nil {
      throw ConversionError.alreadyPacked(source.folder.string)
    }
    if let layout = recipe.layout { try Self.requireLoadable(source, by: layout) }
    let unmatched = recipe.unmatchedPatterns(among: source.tensors.map(\.name))
    guard unmatched.isEmpty else { throw RecipeError.unmatched(unmatched) }
    if evidence != nil, recipe.needsLearning {
      throw ConversionError.needsModel(
        method: Method.learned.rawValue, reason: "--evidence holds no activations to learn from; give --calibration")
    }
    try Self.requireScalable(recipe)
    try Self.requireTunable(recipe)
    if recipe.needsLearning, recipe.inputScaling != nil { throw RecipeError.scalingBeforeLearning }
    if evidence != nil, recipe.inputScaling != nil { throw RecipeError.scalingNeedsModel }
    model = recipe.needsCalibration && evidence == nil ? try Self.model(of: source, recipe) : nil
    var calibrated = model.map { Self.calibratedTensors($0) } ?? []
    if let evidence, recipe.needsCalibration { calibrated = try evidence.calibratedTensors(of: source) }
    self.evidence = evidence
    var withoutEvidence: [String] = []
    var tensors: [Tensor] = []
    var books: OrderedSet<NamedCodebook> = []
    for oriented in source.orientedTensors {
      var tensor = oriented
      let entry = tensor.entry
      var decision = try recipe.decision(for: entry)
      if nonFinite.contains(entry.name) { decision = .keep(reason: "holds infinities or NaN") }
      switch decision {
      case .keep(let reason):
        tensor = tensor.stored
        let specification = TensorSpecification(name: entry.name, type: entry.type, shape: tensor.entry.shape)
        let member = PackedFormat.Member(role: .data, specification: specification)
        tensors.append(Tensor(source: tensor, work: .keep(reason: reason), members: [member]))
      case .quantize(let scheme) where recipe.isCalibrated(scheme) && calibrated.contains(entry.name):
        tensors.append(
          Tensor(
            source: tensor, work: .calibrate(scheme),
            members: PackedFormat.members(of: entry.name, shape: entry.shape, encoding: scheme.encoding)
          ).laid(down: try recipe.layout.map { try Self.weightLayout($0, of: entry, scheme: scheme) }))
      case .round(let format):
        let layout = try recipe.layout.map { try Self.weightLayout($0, of: entry, scheme: nil) }
        guard let tiling = layout.flatMap({ Self.rowTiling($0, of: tensor) }) else { throw Self.tooLong(tensor) }
        tensors.append(Tensor(source: tensor, work: .round(format, tiling), members: []).laid(down: layout))
      case .quantize(let scheme):
        if evidence != nil, scheme.method.isCalibrated { withoutEvidence.append(entry.name) }
        // What belongs to no block, such as the head, has no evidence: it is rounded to nearest in the same form.
        let known = try Self.statistics(statistics[entry.name], of: tensor)
        // Layouts of runtimes have no place for outlier columns: the runtime splits them off by its activations.
        let isSplit = scheme.method.needsStatistics && known != nil && recipe.layout == nil
        if scheme.method.needsStatistics, statistics.isEmpty, recipe.layout == nil {
          throw ConversionError.noStatistics(scheme.method.rawValue)
        }
        let quantizer = TileQuantizer(
          scheme: isSplit ? scheme : scheme.rounding, shape: entry.shape, importance: known.flatMap(Self.importance),
          outliers: isSplit ? known.map { Self.outliers($0, scheme, entry.type, recipe) } : nil)
        let layout = try recipe.layout.map { try Self.weightLayout($0, of: entry, scheme: scheme.rounding) }
        let isInRows = layout.map { !$0.placement.isFlat } ?? false
        guard
          let tiling = isInRows
            ? layout.flatMap({ Self.rowTiling($0, of: tensor) })
            : Tiling(quantizer.grouping, quantizer.encoding, usualLength: Self.tileLength(of: tensor))
        else { throw Self.tooLong(tensor) }
        if recipe.layout == nil { books.append(contentsOf: PackedFormat.codebooks(of: quantizer.encoding)) }
        tensors.append(
          Tensor(
            source: tensor, work: .quantize(quantizer, tiling),
            members: PackedFormat.members(of: entry.name, shape: entry.shape, encoding: quantizer.encoding)
          ).laid(down: layout))
      }
    }
    let isAnyQuantized = tensors.contains(where: \.work.isQuantized)
    guard isAnyQuantized else { throw ConversionError.nothingToQuantize(source.folder.string) }
    if let layout = recipe.layout { try Self.checkLayout(layout, tensors) }
    self.source = source
    self.recipe = recipe
    self.tensors = Self.tuning(
      Self.folding(tensors, recipe, model, nonFinite), recipe, model, nonFinite)
    self.withoutEvidence = withoutEvidence
    featureStrengths = statistics.compactMapValues { FeatureStrengths(meanSquares: $0.meanSquares) }
    codebooks = Array(books)
    sideFiles = try SideFiles(of: source)
    try Self.requireDistinctNames(tensors, codebooks: codebooks)
    files = Self.files(for: source, tensors: tensors, codebooks: codebooks, layout: recipe.layout)
    _ = try layoutConfiguration(toolVersion: "")
  }

  /// The same of weights that are quantized without running the model, in the order of the tensors.
  var inputFeatures: [(tensor: String, strengths: FeatureStrengths)] {
    tensors.compactMap { tensor in
      guard case .quantize = tensor.work else { return nil }
      return featureStrengths[tensor.source.name].map { (tensor.source.name, $0) }
    }
  }

  private static func rowTiling(_ layout: any WeightLayout, of tensor: CheckpointTensor) -> Tiling? {
    Tiling(
      rows: layout.rows, columns: layout.columns, unit: layout.placement.rowUnit, usualLength: tileLength(of: tensor))
  }

  private static func tileLength(of tensor: CheckpointTensor) -> Int {
    tensor.isTransposed ? Tiling.transposedLength : Tiling.usualLength
  }

  private static func tooLong(_ tensor: CheckpointTensor) -> ConversionError {
    .rowTooLong(file: tensor.file.path.string, tensor: tensor.name, length: tensor.entry.shape.last ?? 1)
  }

  /// What is known of a tensor's inputs, if it is of as many as there are.
  private static func statistics(
    _ statistics: FeatureStatistics?, of tensor: CheckpointTensor
  ) throws(ConversionError) -> FeatureStatistics? {
    guard let statistics else { return nil }
    let inputs = tensor.entry.shape.last ?? 1
    guard statistics.dimension == inputs else {
      throw .otherInputs(
        file: tensor.file.path.string, tensor: tensor.name, inputs: inputs, found: statistics.dimension)
    }
    return statistics
  }

  /// E[x²] of each column; nil where no token gave the layer an input other than zero.
  private static func importance(_ statistics: FeatureStatistics) -> [Float]? {
    let squares = statistics.meanSquares
    return squares.contains { $0 > 0 } ? squares : nil
  }

  private static func outliers(
    _ statistics: FeatureStatistics, _ scheme: WeightScheme, _ type: ElementType, _ recipe: Recipe
  ) -> OutlierColumns {
    OutlierColumns(
      statistics, share: recipe.calibration.outlierShare,
      type: OutlierColumns.type(source: type, scaleType: scheme.scaleType))
  }

  /// The model of a checkpoint, for recipes that run it.
  package static func model(of source: Checkpoint, _ recipe: Recipe) throws -> Model {
    do {
      return try Model(source, configuration: source.configuration)
    } catch {
      throw ConversionError.needsModel(method: recipe.calibratedName, reason: error.description)
    }
  }

  /// The weights of linear layers in blocks whose groups run along the inputs, as calibrated methods need them.
  private static func calibratedTensors(_ model: Model) -> Set<String> {
    Set(
      model.description.blocks.flatMap(\.linears).filter { linear in
        if case .expert = linear.storage { linear.outputs % 8 == 0 } else { true }
      }.map(\.weight))
  }

  private static func requireDistinctNames(_ tensors: [Tensor], codebooks: [NamedCodebook]) throws(ConversionError) {
    var owners: [String: String] = [:]
    for book in codebooks { owners[PackedFormat.specification(of: book).name] = "" }
    for tensor in tensors {
      for member in tensor.members {
        let name = member.specification.name
        if let other = owners.updateValue(tensor.source.name, forKey: name) {
          throw .nameCollision(tensor.work.isQuantized || other.isEmpty ? tensor.source.name : other, member: name)
        }
      }
    }
  }

  /// One output file per source file, under the same name where there are several.
  private static func files(
    for source: Checkpoint, tensors: [Tensor], codebooks: [NamedCodebook], layout runtime: RuntimeLayout?
  ) -> [File] {
    let metadata: OrderedDictionary<String, String> =
      switch runtime {
      case nil: ["format": "pt", "quantization_manifest": .init(PackedManifest.fileName)]
      case let runtime?: ["format": runtime.isMLX ? "mlx" : "pt"]
      }
    var members = source.files.map { _ in [TensorSpecification]() }
    for tensor in tensors { members[tensor.source.fileIndex] += tensor.members.map(\.specification) }
    return source.files.enumerated().map { index, file in
      var specifications = members[index]
      if index == 0 { specifications += codebooks.map { PackedFormat.specification(of: $0) } }
      let name = source.files.count > 1 ? file.path.lastComponent?.string : nil
      let layout = SafetensorsLayout(specifications, metadata: metadata)
      return File(name: name ?? Checkpoint.singleName, layout: layout)
    }
  }

  /// Whether some tensors are split by outlier features, though perhaps none was found.
  var hasSplits: Bool {
    recipe.layout == nil
      && tensors.contains {
        if case .quantize(let quantizer, _) = $0.work { quantizer.scheme.method.needsStatistics } else { false }
      }
  }

  // MARK: The texts of the output

  /// The manifest; hashes and sums are missing (zeros) until the bytes are written, which does not change its length.
  func manifest(
    toolVersion: String, hashes: [String: String] = [:], sums: [String: WrittenSums.Sums] = [:]
  ) -> PackedManifest {
    func stored(_ member: PackedFormat.Member) -> PackedManifest.StoredMember {
      let name = member.specification.name
      return PackedManifest.StoredMember(
        role: member.role, tensor: name, byteCount: member.specification.byteCount,
        sha256: hashes[name] ?? String(repeating: "0", count: 64))
    }
    return PackedManifest(
      toolVersion: toolVersion,
      arithmetic: recipe.needsCalibration || recipe.needsStatistics ? linearAlgebraFamily() : nil,
      recipe: recipe.json,
      sourceFiles: source.files.map {
        PackedManifest.File(name: $0.path.lastComponent?.string ?? "", byteCount: $0.header.fileSize)
      },
      files: files.map { PackedManifest.File(name: $0.name, byteCount: $0.layout.fileSize) },
      codebooks: codebooks.map {
        stored(PackedFormat.Member(role: .data, specification: PackedFormat.specification(of: $0)))
      },
      copiedFiles: sideFiles.copied.map(\.name),
      records: tensors.map { tensor in
        PackedManifest.Record(
          name: tensor.source.name, shape: tensor.source.stored.entry.shape,
          isTransposed: tensor.source.isTransposed, type: tensor.source.entry.type,
          file: files[tensor.source.fileIndex].name, fate: tensor.fate, members: tensor.members.map(stored),
          codeSum: tensor.fate.isQuantized ? sums[tensor.source.name]?.codes ?? 0 : nil,
          loss: tensor.fate.isQuantized ? sums[tensor.source.name]?.loss ?? LossSums() : nil)
      })
  }

  /// `config.json` with the quantization stated; nil if the source has none.
  func configuration(toolVersion: String) -> JSONValue? {
    guard var members = source.configuration?.object else { return nil }
    if let made = try? layoutConfiguration(toolVersion: toolVersion) {
      for key in ["quantization_config", "compression_config", "quantization"] { members[key] = nil }
      return .object(members.merging(made.keys) { $1 })
    }
    var quantization: OrderedDictionary<String, JSONValue> = [
      "quant_method": .string(PackedFormat.name),
      "format_version": .integer(tensors.contains(where: \.source.isTransposed) ? 2 : 1),
    ]
    if let scheme = try? recipe.options.scheme() { quantization.merge(scheme.json) { $1 } }
    quantization["manifest"] = .string(PackedManifest.fileName)
    if let earlier = members[ConfigurationKeys.quantization] { quantization[ConfigurationKeys.earlier] = earlier }
    members[ConfigurationKeys.quantization] = .object(quantization)
    return .object(members)
  }

  /// The index of the shards; nil where there is one file.
  func index() -> JSONValue? {
    files.count > 1 ? shardIndex(files.map { ($0.name, $0.layout) }) : nil
  }

  /// Every byte of the output folder.
  package func outputByteCount(toolVersion: String) -> Int {
    var texts = [configuration(toolVersion: toolVersion), index()]
    if let made = try? layoutConfiguration(toolVersion: toolVersion) {
      texts += made.files.values.map(Optional.some)
    } else {
      texts.append(manifest(toolVersion: toolVersion).json)
    }
    return files.reduce(0) { $0 + $1.layout.fileSize } + sideFiles.copied.reduce(0) { $0 + $1.byteCount }
      + texts.compactMap { $0.map { fileBytes($0).count } }.reduce(0, +)
  }
}

enum ConfigurationKeys {
  static let quantization = "quantization_config"
  /// Where the source's own quantization is kept, for `unpack` to put back.
  static let earlier = "source_quantization_config"
}

/// `model.safetensors.index.json` for some files.
func shardIndex(_ files: [(name: String, layout: SafetensorsLayout)]) -> JSONValue {
  var map: OrderedDictionary<String, JSONValue> = [:]
  for file in files {
    for name in file.layout.offsets.keys { map[name] = .string(file.name) }
  }
  map.sort { $0.key < $1.key }
  let total = files.reduce(0) { $0 + $1.layout.fileSize - $1.layout.head.count }
  return ["metadata": ["total_size": .integer(total)], "weight_map": .object(map)]
}

/// A JSON file's bytes as Hugging Face writes them: two spaces, a newline at the end.
func fileBytes(_ json: JSONValue) -> [UInt8] { Array((json.text(indent: 2) + "\n").utf8) }

extension Plan.Tensor {
  /// The same with the members that a runtime's layout has.
  fileprivate func laid(down layout: (any WeightLayout)?) -> Plan.Tensor {
    guard let layout, let module = Plan.module(of: source.name) else { return self }
    let members = layout.members(of: module).map { PackedFormat.Member(role: .data, specification: $0) }
    return Plan.Tensor(source: source, work: work, members: members, layout: layout)
  }
}

extension Plan.Work {
  package var isQuantized: Bool {
    switch self {
    case .keep, .rewrite: false
    case .quantize, .calibrate, .round: true
    }
  }
  var isCalibrated: Bool { if case .calibrate = self { true } else { false } }
}

extension Plan.Tensor {
  fileprivate var fate: PackedManifest.Fate {
    switch work {
    case .keep(let reason): return .kept(reason: reason)
    case .rewrite(let reason): return .folded(reason: reason)
    // Such tensors go to a runtime's layout alone, which has no manifest.
    case .round(let format, _): return .kept(reason: format.label)
    case .quantize(let quantizer, _): return .quantized(quantizer.encoding, scheme: quantizer.scheme.json)
    case .calibrate(let scheme):
      var fields = scheme.json
      if isFolded { fields["folded"] = true }
      return .quantized(scheme.encoding, scheme: fields)
    }
  }
}
