import Checkpoints
import Kernels
import OrderedCollections
import Packing
import Quantization

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
      case .round(let format, _): schemes[module] = .some(format.label)
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

extension Converter {
  /// The packers of the weights that are laid down for a runtime, by tensor.
  func packers() -> [WeightPacker?] {
    let pool = WordMatrixPool(for: plan.tensors.compactMap(\.layout))
    return plan.tensors.map { tensor in
      guard let layout = tensor.layout, let module = Plan.module(of: tensor.source.name) else { return nil }
      return WeightPacker(layout, module: module, pool: pool)
    }
  }

  /// Packs a tile, which is used up, and writes its members as far as they are complete.
  func write(
    _ tile: inout QuantizedTile, first: Int, of tensor: Plan.Tensor, _ packer: WeightPacker, scaleMean: Float? = nil,
    divisor: Float = 1, to target: TargetFile, buffer: inout [UInt8]
  ) throws {
    do {
      try packer.add(&tile, first: first, scaleMean: scaleMean, divisor: divisor, buffer: &buffer) {
        member, offset, bytes, count in
        try target.write(tensor.members[member].specification.name, offset: offset, bytes, count)
      }
    } catch let error as LayoutError {
      throw ConversionError.layout(error)
    }
  }
}
