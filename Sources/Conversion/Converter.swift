import Calibration
import Checkpoints
import Kernels
import Models
import OrderedCollections
import Packing
import Quantization
import Synchronization
import SystemPackage

/// Carries out a plan: reads, quantizes, packs, writes and hashes tile by tile.
package struct Converter: Sendable {
  package let plan: Plan
  package let toolVersion: String
  /// Threads; the output is the same for any number.
  package let workers: Int
  /// The tokens to calibrate on, where the plan has something to calibrate.
  private let windows: CalibrationWindows?
  private let resources: RunResources?
  private let sums = WrittenSums()

  package init(
    plan: Plan, toolVersion: String, workers: Int, windows: CalibrationWindows? = nil, resources: RunResources? = nil
  ) {
    self.plan = plan
    self.toolVersion = toolVersion
    self.workers = workers
    self.windows = windows
    self.resources = resources
  }

  /// Writes the packed folder.
  /// - Parameter earlier: the entries of an interrupted run that is taken up.
  /// - Parameter onProgress: called from any thread, one call at a time; false stops the work.
  /// - Parameter onCalibration: how far the calibration is; false stops the work as well.
  /// - Parameter onSplit: receives what splitting off outlier features did, where the plan has such tensors.
  /// - Returns: what came of each calibrated layer.
  @discardableResult
  package func run(
    into output: OutputFolder, goingOnFrom earlier: [JSONValue] = [],
    onCalibration: @escaping (WorkProgress) -> Bool = { _ in true }, onSplit: (SplitSummary) -> Void = { _ in },
    onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> [LayerOutcome] {
    do {
      try output.beginIfNeeded()
      let finished = try FinishedWork(earlier, of: plan, in: output, workers: workers, onProgress: onProgress)
      let outcomes = try write(
        to: output, finished, onCalibration: onCalibration, onSplit: onSplit, onProgress: onProgress)
      try output.commit()
      return outcomes
    } catch {
      throw output.leave(error)
    }
  }

  private func write(
    to output: OutputFolder, _ finished: FinishedWork, onCalibration: @escaping (WorkProgress) -> Bool,
    onSplit: (SplitSummary) -> Void, onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws -> [LayerOutcome] {
    let needed = plan.outputByteCount(toolVersion: toolVersion)
    if let free = output.freeBytes, free + output.writtenBytes < needed {
      throw ConversionError.cannotCreate(
        output.path.string, "the output takes \(needed) bytes, the file system has \(free) left")
    }
    let targets = try targets(in: output, finished)
    try writeCodebooks(to: targets)
    let splits = try measureSplits(finished, output, onProgress: onCalibration)
    let record = try flushing(targets, if: output.isDurable) {
      let packers = packers()
      let record = try writeCalibrated(to: targets, packers, output, finished, onProgress: onCalibration)
      try writeTensors(to: targets, packers, except: finished.tensors, onProgress: onProgress)
      return record
    }
    let (outcomes, learning) = (record.layers, record.learning)
    let hashes = targets.reduce(into: finished.hashes) { $0.merge($1.finishedHashes()) { $1 } }

    try plan.sideFiles.copy(to: output.work)
    if let configuration = plan.configuration(toolVersion: toolVersion) {
      try output.write(fileBytes(configuration), to: SideFiles.configuration)
    }
    if let index = plan.index() { try output.write(fileBytes(index), to: Checkpoint.indexName) }
    if let made = try plan.layoutConfiguration(toolVersion: toolVersion) {
      for (name, text) in made.files { try output.write(fileBytes(text), to: name) }
    } else {
      // Tensors that were done before may have been written again, and their codes added.
      let sums = sums.values.merging(finished.sums) { $1 }
      let manifest = plan.manifest(toolVersion: toolVersion, hashes: hashes, sums: sums)
      try output.write(fileBytes(manifest.json), to: PackedManifest.fileName)
    }
    if let summary = CalibrationSummary(
      outcomes, learning: learning, windows: windows, evidence: plan.evidence, features: plan.inputFeatures)
    {
      var fields = summary.json.object ?? [:]
      if let splits { fields["outlier_split"] = splits.json }
      // The manifest tells it of a packed folder; the layouts of runtimes have none.
      if plan.recipe.layout != nil {
        let folded = plan.tensors.filter(\.isFolded).map { JSONValue.string($0.source.name) }
        if !folded.isEmpty { fields[CalibrationSummary.foldedKey] = .array(folded) }
        let tuned = plan.tensors.filter(\.isTuned).map { JSONValue.string($0.source.name) }
        if !tuned.isEmpty { fields[CalibrationSummary.tunedKey] = .array(tuned) }
      }
      try output.write(fileBytes(.object(fields)), to: CalibrationSummary.fileName)
    }
    splits.map(onSplit)
    return outcomes
  }

  /// The files of the output. Tensors that are done already are not hashed once more if they are written again.
  private func targets(in output: OutputFolder, _ finished: FinishedWork) throws -> [TargetFile] {
    let log = output.journal.map { TensorLog(plan, $0, sums) }
    var members = plan.files.map { _ in [TensorSpecification]() }
    for tensor in plan.tensors where !finished.tensors.contains(tensor.source.name) {
      members[tensor.source.fileIndex] += tensor.members.map(\.specification)
    }
    if !members.isEmpty { members[0] += plan.codebooks.map { PackedFormat.specification(of: $0) } }
    return try zip(plan.files, members).map { file, members in
      try TargetFile(file.name, layout: file.layout, in: output, hashing: members) {
        (member, hash) throws(ConversionError) in try log?.finish(member, hash: hash)
      }
    }
  }

  /// What splitting does to the layers with outlier columns; nil where the plan, or the run, has nothing of the kind.
  private func measureSplits(
    _ finished: FinishedWork, _ output: OutputFolder, onProgress: @escaping (WorkProgress) -> Bool
  ) throws -> SplitSummary? {
    guard plan.hasSplits, let windows, let resources else { return nil }
    let model = try Plan.model(of: plan.source, plan.recipe)
    let layers = SplitLayers(plan: plan, model: model, windows: windows, resources: resources, workers: workers)
    let outcomes = try layers.run(for: output, goingOnFrom: finished.splits, onProgress: onProgress)
    return SplitSummary(outcomes, plan.recipe.calibration, windows)
  }

  /// Quantizes and writes what needs the model to run.
  private func writeCalibrated(
    to targets: [TargetFile], _ packers: [WeightPacker?], _ output: OutputFolder, _ finished: FinishedWork,
    onProgress: @escaping (WorkProgress) -> Bool
  ) throws -> CalibrationRecord {
    let record = CalibrationRecord()
    let log = output.journal.map { BlockLog(output, $0, finished: finished.blocks, workers: workers) }
    var packed: [UInt8] = []
    var losses = CalibratedLoss()
    let laidDown = Dictionary(
      zip(plan.tensors, packers).compactMap { tensor, packer in packer.map { (tensor.source.name, $0) } }
    ) { first, _ in first }
    let writer: CalibratedLayers.TileWriter = { tensor, scheme, tile, first in
      log?.note(tensor.source.name)
      if let packer = laidDown[tensor.source.name] {
        var tile = tile
        return try write(
          &tile, first: first, of: tensor, packer, to: targets[tensor.source.fileIndex], buffer: &packed)
      }
      let packer = TilePacker(
        encoding: scheme.encoding, grouping: scheme.encoding.grouping(of: tensor.source.entry.shape),
        matrices: tensor.source.entry.shape.dropLast(2).reduce(1, *))
      sums.add(
        tile.codes.span, try losses.sums(of: tile, tensor, scheme.encoding, first: first), of: tensor.source.name,
        first: first, count: tensor.source.entry.elementCount)
      try packer.pack(tile, first: first, scaleMean: nil, buffer: &packed) { role, offset, bytes, count in
        try write(role, of: tensor, offset: offset, bytes, count, to: targets[tensor.source.fileIndex])
      }
    }
    if let evidence = plan.evidence {
      let layers = StoredEvidenceLayers(plan: plan, evidence: evidence, workers: workers)
      record.layers = try layers.run(
        finished: finished.layers, onProgress: onProgress,
        onLayer: { try output.journal?.append([FinishedWork.Key.layer: JSONValue(encoding: $0)]) }, write: writer)
      return record
    }
    guard let model = plan.model, let windows, let resources else { return record }
    var folded: [UInt8] = []
    try CalibratedLayers(plan: plan, model: model, windows: windows, resources: resources, workers: workers)
      .run(
        into: record, log: log, kept: output.journal.map { KeptWork(output, $0, workers: workers) },
        onProgress: onProgress,
        rewrite: { tensor, first, values in
          log?.note(tensor.source.name)
          if let index = firstNonFinite(values.span) {
            throw ConversionError.foldedOverflow(tensor: tensor.source.name, value: "\(values[index])")
          }
          let count = encodeElements(values, as: tensor.source.entry.type, into: &folded)
          try targets[tensor.source.fileIndex].write(
            tensor.source.name, offset: first * tensor.source.entry.type.bitWidth / 8, folded, count)
        }, write: writer)
    return record
  }

  private func write(
    _ role: PackedFormat.Role, of tensor: Plan.Tensor, offset: Int, _ bytes: [UInt8], _ count: Int,
    to target: TargetFile
  ) throws {
    guard let member = tensor.members.first(where: { $0.role == role }) else { return }
    try target.write(member.specification.name, offset: offset, bytes, count)
  }

  private func writeCodebooks(to targets: [TargetFile]) throws {
    for book in plan.codebooks {
      var bytes: [UInt8] = []
      let count = encodeElements(book.codebook.levels, as: .f32, into: &bytes)
      try targets[0].write(PackedFormat.specification(of: book).name, offset: 0, bytes, count)
    }
  }

  // MARK: Tensors

  /// What the stages of one tensor hand on to each other.
  private final class TensorState: Sendable {
    struct Contents {
      var facts = TensorFacts()
      var findings: [TensorScan.Finding?] = []
      var remaining = 0
      /// The largest magnitude.
      var largest: Float = 0
    }
    let contents = Mutex(Contents())
  }

  private enum Stage {
    case scan(TensorScan)
    case largest
    case write
  }

  private struct Buffers {
    var bytes: [UInt8] = []
    var values: [Float] = []
    var packed: [UInt8] = []
    var tile = QuantizedTile()
    /// Weights and their reconstruction, where they are compared.
    var compared: (source: [Float], decoded: [Float]) = ([], [])
  }

  private static let copyLength = 1 << 20

  private func stages(of tensor: Plan.Tensor) -> [Stage] {
    switch tensor.work {
    case .keep: [.write]
    case .calibrate, .rewrite: []
    case .round(let format, _): format.needsLargest ? [.largest, .write] : [.write]
    case .quantize(let quantizer, _): quantizer.scans.map { .scan($0) } + [.write]
    }
  }

  /// Bytes that are read to write tensors tile by tile, by what takes about as long for each.
  package func writtenBytes(except finished: Set<String> = []) -> [String: Int] {
    var kinds: [String: Int] = [:]
    for tensor in plan.tensors where !finished.contains(tensor.source.name) {
      for stage in stages(of: tensor) { kinds[kind(of: tensor, stage), default: 0] += tensor.sourceByteCount }
    }
    return kinds
  }

  /// What takes about as long for each byte.
  private func kind(of tensor: Plan.Tensor, _ stage: Stage) -> String {
    guard case .write = stage else { return "scan" }
    return switch tensor.work {
    case .quantize(let quantizer, _): "\(quantizer.scheme.method.rawValue) \(quantizer.encoding.bits)"
    case .round(let format, _): format.rawValue
    case .keep, .calibrate, .rewrite: "copy"
    }
  }

  private func tileCount(of tensor: Plan.Tensor) -> Int {
    switch tensor.work {
    case .keep: return (tensor.sourceByteCount + Self.copyLength - 1) / Self.copyLength
    case .quantize(_, let tiling), .round(_, let tiling): return tiling.tiles
    case .calibrate, .rewrite: return 0
    }
  }

  private func writeTensors(
    to targets: [TargetFile], _ packers: [WeightPacker?], except finished: Set<String>,
    onProgress: @escaping @Sendable (ByteProgress) -> Bool
  ) throws {
    let stages = plan.tensors.map { finished.contains($0.source.name) ? [] : self.stages(of: $0) }
    let needsWords = plan.tensors.contains { $0.layout.map { $0.wordCount > 0 } ?? false }
    let schedule = Schedule(
      tileCounts: zip(plan.tensors, stages).map { tensor, stages in stages.map { _ in tileCount(of: tensor) } },
      // One weight after another where words of a whole weight are gathered in memory.
      files: plan.tensors.map { needsWords ? 0 : $0.source.fileIndex })
    let passes = zip(plan.tensors, stages).map { $0.sourceByteCount * $1.count }
    let progress = ProgressCounter(
      total: passes.reduce(0, +), kinds: writtenBytes(except: finished), report: onProgress)
    let states = plan.tensors.map { _ in TensorState() }
    try schedule.run(workers: workers, makeState: { Buffers() }) { item, buffers in
      let tensor = plan.tensors[item.tensor]
      let target = targets[tensor.source.fileIndex]
      switch stages[item.tensor][item.stage] {
      case .write:
        let read: Int
        switch tensor.work {
        case .keep: read = try copy(tensor, part: item.tile, to: target, &buffers)
        case .quantize(let quantizer, let tiling):
          let facts = states[item.tensor].contents.withLock { $0.facts }
          let elements = tiling.elements(of: item.tile)
          read = try quantize(tensor, quantizer, elements, facts, packers[item.tensor], to: target, &buffers)
        case .round(let format, let tiling):
          guard let packer = packers[item.tensor] else { return }
          let divisor = format.divisor(largest: states[item.tensor].contents.withLock { $0.largest })
          read = try round(tensor, format, tiling.elements(of: item.tile), divisor, packer, to: target, &buffers)
        case .calibrate, .rewrite: return
        }
        try progress.add(read, kind(of: tensor, .write))
      case .largest:
        guard case .round(_, let tiling) = tensor.work else { return }
        let elements = tiling.elements(of: item.tile)
        try progress.add(
          try findLargest(of: tensor, elements, states[item.tensor], &buffers), kind(of: tensor, .largest))
      case .scan(let scan):
        guard case .quantize(let quantizer, let tiling) = tensor.work else { return }
        let elements = tiling.elements(of: item.tile)
        try progress.add(
          try self.scan(
            scan, tensor, quantizer, elements, tile: item.tile, of: tiling.tiles, states[item.tensor], &buffers),
          kind(of: tensor, .scan(scan)))
      }
    }
  }

  /// Copies a part of a kept tensor, byte for byte.
  private func copy(_ tensor: Plan.Tensor, part: Int, to target: TargetFile, _ buffers: inout Buffers) throws -> Int {
    let start = part * Self.copyLength
    let range = start..<min(start + Self.copyLength, tensor.sourceByteCount)
    try tensor.source.readBytes(range, into: &buffers.bytes)
    try target.write(tensor.source.name, offset: start, buffers.bytes, range.count)
    return range.count
  }

  private func quantize(
    _ tensor: Plan.Tensor, _ quantizer: TileQuantizer, _ elements: Range<Int>, _ facts: TensorFacts,
    _ weightPacker: WeightPacker?, to target: TargetFile, _ buffers: inout Buffers
  ) throws -> Int {
    // Taken out and put back: the quantizer borrows the bytes while it changes the tile.
    var source: [UInt8] = []
    swap(&source, &buffers.bytes)
    defer { swap(&source, &buffers.bytes) }
    let read = try tensor.source.read(elements, into: &source)
    let bytes = source.span.bytes.extracting(0..<read)
    do {
      try quantizer.quantize(
        bytes, as: tensor.source.entry.type, first: elements.lowerBound, facts: facts, into: &buffers.tile)
    } catch {
      throw explained(error, tensor.source)
    }
    if let weightPacker {
      try write(
        &buffers.tile, first: elements.lowerBound, of: tensor, weightPacker, scaleMean: facts.scaleMean, to: target,
        buffer: &buffers.packed)
      return read
    }
    let packer = TilePacker(
      encoding: quantizer.encoding, grouping: quantizer.grouping, outlierColumns: quantizer.outliers?.columns ?? [])
    let loss = quantizer.loss(
      of: buffers.tile, bytes, as: tensor.source.entry.type, first: elements.lowerBound, facts: facts,
      using: &buffers.compared)
    sums.add(
      buffers.tile.codes.span, loss, of: tensor.source.name, first: elements.lowerBound,
      count: tensor.source.entry.elementCount)
    try packer.pack(
      buffers.tile, first: elements.lowerBound, scaleMean: facts.scaleMean, buffer: &buffers.packed
    ) { role, offset, bytes, count in
      try write(role, of: tensor, offset: offset, bytes, count, to: target)
    }
    return read
  }

  /// Rounds a tile to floats of a runtime's kind.
  private func round(
    _ tensor: Plan.Tensor, _ format: FloatRounding, _ elements: Range<Int>, _ divisor: Float, _ packer: WeightPacker,
    to target: TargetFile, _ buffers: inout Buffers
  ) throws -> Int {
    let read = try readValues(tensor.source, elements, bytes: &buffers.bytes, values: &buffers.values)
    let values = buffers.values
    do {
      try format.quantize(
        values.span, columns: tensor.source.entry.shape.last ?? 1, first: elements.lowerBound,
        divisor: divisor, into: &buffers.tile)
    } catch {
      throw explained(error, tensor.source)
    }
    try write(
      &buffers.tile, first: elements.lowerBound, of: tensor, packer, divisor: divisor, to: target,
      buffer: &buffers.packed)
    return read
  }

  /// One tile of a pass for the largest magnitude.
  private func findLargest(
    of tensor: Plan.Tensor, _ elements: Range<Int>, _ state: TensorState, _ buffers: inout Buffers
  ) throws -> Int {
    let read = try readValues(tensor.source, elements, bytes: &buffers.bytes, values: &buffers.values)
    let largest = absoluteMaximum(buffers.values.span)
    if !largest.isFinite, let index = firstNonFinite(buffers.values.span) {
      throw explained(
        QuantizationError.notFinite(element: elements.lowerBound + index, value: "\(buffers.values[index])"),
        tensor.source)
    }
    state.contents.withLock { $0.largest = max($0.largest, largest) }
    return read
  }

  /// One tile of a pass over a tensor; the last tile to end draws the conclusion.
  private func scan(
    _ scan: TensorScan, _ tensor: Plan.Tensor, _ quantizer: TileQuantizer, _ elements: Range<Int>, tile: Int,
    of tiles: Int, _ state: TensorState, _ buffers: inout Buffers
  ) throws -> Int {
    let read = try readValues(tensor.source, elements, bytes: &buffers.bytes, values: &buffers.values)
    let facts = state.contents.withLock { $0.facts }
    do {
      let finding = try quantizer.scan(scan, buffers.values.span, first: elements.lowerBound, facts: facts)
      try state.contents.withLock { contents in
        if contents.findings.isEmpty {
          contents.findings = Array(repeating: nil, count: tiles)
          contents.remaining = tiles
        }
        contents.findings[tile] = finding
        contents.remaining -= 1
        guard contents.remaining == 0 else { return }
        contents.facts = try quantizer.facts(from: contents.findings.compactMap { $0 }, after: facts)
        contents.findings = []
      }
    } catch let error as QuantizationError {
      throw explained(error, tensor.source)
    }
    return read
  }
}
