import Checkpoints
import Models
import Quantization
import Reports

extension PlanSummary {
  package init(_ plan: Plan, toolVersion: String, memory: MemoryPlan) {
    self.init(
      tensors: plan.tensors.map { tensor in
        let entry = tensor.source.stored.entry
        var scheme: String?
        var reason: String?
        switch tensor.work {
        case .quantize(let quantizer, _): scheme = quantizer.encoding.label
        case .round(let format, _): scheme = format.label
        case .calibrate(let own): scheme = "\(own.method.rawValue) \(own.encoding.label)"
        case .keep(let why), .rewrite(let why): reason = why
        }
        return Tensor(
          name: entry.name, shape: entry.shape, type: entry.type, scheme: scheme, reason: reason,
          sourceByteCount: tensor.sourceByteCount, storedByteCount: tensor.storedByteCount)
      }.sorted { $0.name.naturallyPrecedes($1.name) },
      files: plan.files.map { ($0.name, $0.layout.fileSize) }, copiedFiles: plan.sideFiles.copied.map(\.name),
      leftFiles: plan.sideFiles.left, outputByteCount: plan.outputByteCount(toolVersion: toolVersion),
      support: ModelSupport(plan.source),
      memory: memory.summary)
  }
}

extension ModelSupport {
  package init(_ checkpoint: Checkpoint) {
    do {
      let model = try Model(checkpoint, configuration: checkpoint.configuration)
      self = .runs(modelType: model.description.modelType, unusedTensors: model.unusedTensors)
    } catch {
      self = .cannotRun(reason: error.description)
    }
  }
}
