import Checkpoints
import Kernels
import OrderedCollections
import Packing
import Quantization
import Synchronization

/// How a tensor of the plan is laid down for a runtime.
extension Plan {
  /// The last part of the names of tensors that are weights of modules.
  private static let weightSuffix = ".weight"

  /// The module whose weight a tensor is; nil if its name is none of a weight.
  static func module(of tensor: String) -> String? {
    tensor.hasSuffix(weightSuffix) && tensor.utf8.count > weightSuffix.utf8.count
      ? String(tensor.dropLast(weightSuffix.count)) : nil
  }

  /// The layout of a tensor that a scheme quantizes, or that is rounded to floats.
  static func weightLayout(
    _ layout: RuntimeLayout, of entry: TensorEntry, scheme: WeightScheme?
  ) throws(ConversionError) -> any WeightLayout {
    do {
      guard let module = module(of: entry.name) else {
        throw LayoutError.notAMatrix(layout, tensor: entry.name, shape: entry.shape)
      }
      guard let scheme else { return try layout.floatLayout(of: module, shape: entry.shape) }
      if scheme.scaleSearch == .signedMSE, !layout.rules.allowsNegativeScales {
        throw LayoutError.negativeScale(layout, module: module)
      }
      return try layout.weightLayout(
        of: module, shape: entry.shape, encoding: scheme.encoding, type: entry.type,
        description: "\(scheme.method.rawValue) \(scheme.encoding.label)")
    } catch let error as LayoutError {
      throw .layout(error)
    } catch {
      throw .cannotCreate(entry.name, "\(error)")
    }
  }

  /// Refuses models that the layout's runtimes do not load.
  static func requireLoadable(_ source: Checkpoint, by layout: RuntimeLayout) throws(ConversionError) {
    let modelType = source.configuration?["model_type"]?.string ?? ""
    if let reason = layout.obstacle(modelType: modelType) {
      throw .layout(.unsupportedModel(layout, modelType: modelType, reason: reason))
    }
  }

  /// Refuses layers that runtimes fuse but that differ.
  static func checkLayout(_ layout: RuntimeLayout, _ tensors: [Tensor]) throws(ConversionError) {
    guard !layout.isMLX, layout != .bitsandbytes else { return }
    var schemes: [String: String?] = [:]
    for tensor in tensors {
      guard let module = module(of: tensor.source.name) else { continue }
      switch tensor.work {
      case .quantize(let quantizer, _): schemes[module] = .some(quantizer.encoding.label)
      case .calibrate(let scheme): schemes[module] = .some(scheme.encoding.label)
      case .round(let format): schemes[module] = .some(format.label)
      case .keep, .rewrite: schemes[module] = .some(nil)
      }
    }
    do {
      try FusedLayers.check(schemes)
    } catch {
      throw .layout(error)
    }
  }

  /// What the output says of itself, in a runtime's layout.
  func layoutConfiguration(toolVersion: String) throws(ConversionError) -> LayoutConfiguration? {
    guard let layout = recipe.layout else { return nil }
    var modules: [LayoutConfiguration.Module] = []
    var unquantized: [String] = []
    for tensor in tensors {
      guard let module = Self.module(of: tensor.source.name) else { continue }
      let columns = tensor.source.entry.shape.last ?? 1
      switch tensor.work {
      case .quantize(let quantizer, _):
        modules.append(LayoutConfiguration.Module(name: module, encoding: quantizer.encoding, columns: columns))
      case .calibrate(let scheme):
        modules.append(LayoutConfiguration.Module(name: module, encoding: scheme.encoding, columns: columns))
      case .round: modules.append(LayoutConfiguration.Module(name: module, encoding: nil, columns: columns))
      case .keep, .rewrite:
        if [.linear, .head, .router].contains(TensorRole(tensor.source.entry)) { unquantized.append(module) }
      }
    }
    do {
      return try LayoutConfiguration(
        layout: layout, modules: modules, unquantized: unquantized,
        type: tensors.first { $0.work.isQuantized }?.source.entry.type ?? .bf16, toolVersion: toolVersion)
    } catch {
      throw .layout(error)
    }
  }
}

/// The tiles of one weight, put together in their order.
struct WeightAssembly {
  private let shape: [Int]
  private let encoding: WeightEncoding
  private var codes: [UInt8] = []
  private var scales: [Float] = []
  private var zeroPoints: [Float] = []
  private var scaleCodes: [UInt8] = []
  private var blockScales: [Float] = []
  /// Comes with the first tile.
  private var groupIndex: [Int32] = []

  init(shape: [Int], encoding: WeightEncoding) {
    self.shape = shape
    self.encoding = encoding
    // Growing as tiles come would copy the codes several times.
    codes.reserveCapacity(shape.reduce(1, *))
    scales.reserveCapacity(encoding.grouping(of: shape).groupCount)
  }

  var isComplete: Bool { codes.count == shape.reduce(1, *) }

  mutating func append(_ tile: QuantizedTile) {
    codes += tile.codes
    scales += tile.scales
    zeroPoints += tile.zeroPoints
    scaleCodes += tile.scaleCodes
    blockScales += tile.blockScales
    groupIndex += tile.groupIndex
  }

  /// - Precondition: the weight is complete.
  func weight(scaleMean: Float?) -> CodedWeight {
    let grouping = encoding.grouping(of: shape)
    let decoding: CodedWeight.Decoding =
      if case .codebook(let book) = encoding.levels { .levels(book.codebook.levels) } else { .zeroPoint }
    let sharing: CodedWeight.Sharing =
      if case .block(let length) = encoding.sharing { .block(length) } else { .columns(grouping.groupLength) }
    let nested = scaleMean.map {
      CodedWeight.NestedScales(codes: scaleCodes, blockScales: blockScales, offset: $0)
    }
    return CodedWeight(
      rows: shape[0], columns: shape[1], bits: encoding.bits, decoding: decoding, sharing: sharing, codes: codes,
      scales: scales, zeroPoints: zeroPoints, groupIndex: groupIndex.isEmpty ? nil : groupIndex, nested: nested)
  }
}

extension Converter {
  /// Quantizes and writes the weights that a layout takes whole, one after another: memory holds one weight's codes, its
  /// packed bytes, and the tiles being read.
  func writeWholeWeights(
    to targets: [TargetFile], except finished: Set<String>, onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws {
    let whole = plan.tensors.filter {
      $0.layout != nil && $0.work.isQuantized && !$0.work.isCalibrated && !finished.contains($0.source.name)
    }
    let progress = ProgressCounter(
      total: whole.reduce(0) { $0 + $1.sourceByteCount }, stage: "layers", report: onProgress)
    for tensor in whole {
      let weight: CodedWeight
      switch tensor.work {
      case .quantize(let quantizer, let tiling): weight = try quantizeWhole(tensor, quantizer, tiling)
      case .round(let format):
        let entry = tensor.source.entry
        var (bytes, values): ([UInt8], [Float]) = ([], [])
        _ = try readValues(tensor.source, 0..<entry.elementCount, bytes: &bytes, values: &values)
        do {
          weight = try format.quantize(values, rows: entry.shape[0], columns: entry.shape[1])
        } catch {
          throw explained(error, tensor.source)
        }
      case .keep, .rewrite, .calibrate: continue
      }
      try writeWhole(weight, of: tensor, to: targets)
      try progress.add(tensor.sourceByteCount)
    }
  }

  /// Packs a weight and writes its members.
  func writeWhole(_ weight: CodedWeight, of tensor: Plan.Tensor, to targets: [TargetFile]) throws {
    guard let layout = tensor.layout, let module = Plan.module(of: tensor.source.name) else { return }
    let members: [[UInt8]]
    do {
      members = try layout.pack(weight, module: module, workers: workers)
    } catch {
      throw ConversionError.layout(error)
    }
    for (member, bytes) in zip(tensor.members, members) {
      try targets[tensor.source.fileIndex].write(member.specification.name, offset: 0, bytes, bytes.count)
    }
  }

  private func quantizeWhole(
    _ tensor: Plan.Tensor, _ quantizer: TileQuantizer, _ tiling: Tiling
  ) throws -> CodedWeight {
    struct Buffers {
      var bytes: [UInt8] = []
      var values: [Float] = []
    }
    let source = tensor.source
    var facts = TensorFacts()
    do {
      for scan in quantizer.scans {
        let findings = Mutex([TensorScan.Finding?](repeating: nil, count: tiling.tiles))
        let known = facts
        try runParallel(count: tiling.tiles, workers: workers, makeState: { Buffers() }) { tile, buffers in
          let elements = tiling.elements(of: tile)
          _ = try readValues(source, elements, bytes: &buffers.bytes, values: &buffers.values)
          let found = try quantizer.scan(scan, buffers.values.span, first: elements.lowerBound, facts: known)
          findings.withLock { $0[tile] = found }
        }
        facts = try quantizer.facts(from: findings.withLock { $0.compactMap(\.self) }, after: facts)
      }
      let tiles = Mutex([QuantizedTile?](repeating: nil, count: tiling.tiles))
      let known = facts
      try runParallel(count: tiling.tiles, workers: workers, makeState: { Buffers() }) { tile, buffers in
        let elements = tiling.elements(of: tile)
        _ = try readValues(source, elements, bytes: &buffers.bytes, values: &buffers.values)
        var quantized = QuantizedTile()
        try quantizer.quantize(buffers.values.span, first: elements.lowerBound, facts: known, into: &quantized)
        tiles.withLock { $0[tile] = quantized }
      }
      var assembly = WeightAssembly(shape: source.entry.shape, encoding: quantizer.encoding)
      for tile in tiles.withLock({ $0.compactMap(\.self) }) { assembly.append(tile) }
      return assembly.weight(scaleMean: facts.scaleMean)
    } catch let error as QuantizationError {
      throw explained(error, source)
    }
  }
}
