import Kernels
import Models
import Quantization

extension BlockCalibration {
  /// A model on its way through a block: the quantized one, or the original.
  struct Track: Sendable {
    /// 0: the quantized model; 1: the original.
    let index: Int
    let forward: BlockForward
    let weights: BlockWeights
    let states: HiddenStates
  }

  /// One block's turn.
  struct BlockRun {
    let block: BlockDescription
    let quantized: Track
    let original: Track?
    let groups: [Group]
    /// Of all groups; nil: their steps are run by all threads together.
    let parts: [TokenBatch.Part]?
    let tables: RotaryTables?
    let pool: MatrixPool
    let options: Options
    /// Of the model, for messages.
    let place: String
    let isWanted: (LinearDescription) -> Bool
    let purpose: Purpose
    let scalings: [LinearDescription: LayerScaling]
    /// Whether nothing comes after, so that what the quantized block gives need not be known.
    let isLast: Bool
    let makeStates: (_ width: Int) throws -> HiddenStates
    let meter: CalibrationMeter

    private var tracks: [Track] { [quantized] + (original.map { [$0] } ?? []) }
    private var width: Int { quantized.states.width }

    func run() throws {
      try work(
        on: block.attention.input, \.attentionInput, width: width,
        .computed { track, group, x in
          try track.states.read(groups[group].rows) { track.forward.attentionInput($0, into: x) }
        })
      var attended = [try attend(quantized)]
      // The original goes ahead: what its stream is after a branch is what the quantized layer aims at. If it does not aim
      // at that, what the original's layer reads is kept, too.
      if let original {
        if meetsStream(block.attentionNorms) {
          try run(original) { [tables] tokens, forward in
            try original.states.update(tokens.rows) { forward.runAttention($0, tokens.batch, tables: tables) }
          }
        } else {
          attended.append(try attend(original))
          if !block.isParallel { try addAttention(original, attended[original.index]) }
        }
      }
      try meter.add(.run, meter.costs.attend(block))
      try work(
        on: ProjectionDescription([block.attention.output]), \.attentionOutput, width: attended[0].width,
        meetsStream: meetsStream(block.attentionNorms), .kept { attended[$0.index] })
      if !block.isParallel { try addAttention(quantized, attended[0]) }
      try meter.add(.run, meter.costs.product(block.attention.output))
      switch block.feedForward {
      case .gated(let input, let output, _): try feedForward(input, output)
      case .plain(let input, let output, _): try feedForward(ProjectionDescription([input]), output)
      case .mixture(let mixture): try self.mixture(mixture)
      }
      if block.isParallel { for track in tracks { try addAttention(track, attended[track.index]) } }
    }

    /// Whether a branch's output is added to the stream as it is, and nothing else is added or done to it.
    private func meetsStream(_ norms: BranchNorms) -> Bool {
      options.correctsStream && block.addsUnchanged(norms)
    }

    /// Takes all tokens of a track through a step: part by part, each on a thread of its own, or else group by group.
    private func run(
      _ track: Track, _ step: @Sendable (_ tokens: TokenBatch.Part, _ forward: BlockForward) throws -> Void
    ) throws {
      guard let parts else {
        return try groups.forEach { try step(TokenBatch.Part(rows: $0.rows, batch: $0.batch), track.forward) }
      }
      let forward = BlockForward(block, track.weights, pool: pool, workers: 1)
      try runParallel(count: parts.count, workers: options.workers, makeState: {}) { part, _ in
        try step(parts[part], forward)
      }
    }

    /// - Returns: what the attention's output projection reads.
    private func attend(_ track: Track) throws -> HiddenStates {
      let (pool, width, tables) = (pool, width, tables)
      let attended = try makeStates(block.attention.output.inputs)
      try run(track) { tokens, forward in
        let x = pool.take(rows: tokens.rows.count, columns: width)
        try track.states.read(tokens.rows) { forward.attentionInput($0, into: x) }
        try attended.update(tokens.rows) {
          forward.attend(x, tokens.batch, tables: tables, cache: nil, into: $0)
        }
        pool.give(x)
      }
      return attended
    }

    private func addAttention(_ track: Track, _ attended: HiddenStates) throws {
      try run(track) { tokens, forward in
        try track.states.update(tokens.rows) { hidden in
          try attended.read(tokens.rows) { forward.addAttention($0, to: hidden) }
        }
      }
    }

    private func feedForward(_ input: ProjectionDescription, _ output: LinearDescription) throws {
      try work(
        on: input, \.feedForward[0].input, width: width,
        .computed { track, group, x in
          try track.states.read(groups[group].rows) { track.forward.feedForwardInput($0, into: x) }
        })
      let meets = meetsStream(block.feedForwardNorms)
      if let original, meets {
        try run(original) { tokens, forward in
          try original.states.update(tokens.rows) { forward.runFeedForward($0) }
        }
      }
      // The activations are kept, on disk if need be: computing them twice would cost more.
      let (pool, width) = (pool, width)
      let inners = try (meets ? [quantized] : tracks).map { track in
        let inners = try makeStates(output.inputs)
        try run(track) { tokens, forward in
          let x = pool.take(rows: tokens.rows.count, columns: width)
          try track.states.read(tokens.rows) { forward.feedForwardInput($0, into: x) }
          try inners.update(tokens.rows) { forward.inner(x, expert: 0, into: $0) }
          pool.give(x)
        }
        return inners
      }
      try meter.add(.run, meter.costs.inner(input, output))
      func add(_ track: Track) throws {
        let inners = inners[track.index]
        try run(track) { tokens, forward in
          try track.states.update(tokens.rows) { hidden in
            try inners.read(tokens.rows) { forward.addFeedForward(ofInner: $0, to: hidden) }
          }
        }
      }
      if let original, !meets { try add(original) }
      try work(
        on: ProjectionDescription([output]), \.feedForward[0].output, width: output.inputs,
        meetsStream: meets, .kept { inners[$0.index] })
      if !isLast { try add(quantized) }
      try meter.add(.run, meter.costs.product(output))
    }

    /// Gives a body what the feed-forward layer reads.
    private func read(_ track: Track, _ group: Int, _ body: (Matrix) -> Void) throws {
      let x = pool.take(rows: groups[group].rows.count, columns: width)
      try track.states.read(groups[group].rows) { track.forward.feedForwardInput($0, into: x) }
      body(x)
      pool.give(x)
    }

    /// Each expert sees the tokens that the router of the quantized model sends it; one that is to be quantized and was
    /// sent too few sees all.
    private func mixture(_ mixture: MixtureDescription) throws {
      // The router is never quantized, so that routes stay those of the first pass.
      var routes: [[ExpertRoute]] = []
      for group in groups.indices {
        try read(quantized, group) { routes.append(quantized.forward.routes($0, mixture)) }
      }
      for (index, description) in mixture.experts.enumerated() {
        var tokens = routes.map { $0[index].tokens }
        var routed: Int?
        if case .quantize = purpose {
          let calibrated = groups.indices.filter { !groups[$0].isHeldOut }
          let sent = calibrated.reduce(0) { $0 + tokens[$1].count }
          if sent < MixtureRule.leastTokens(inputs: max(width, description.output.inputs)) {
            routed = sent
            for group in calibrated { tokens[group] = Array(0..<groups[group].rows.count) }
          }
        }
        try work(
          on: description.input, { $0.feedForward[index].input }, width: width, rows: tokens, routed: routed,
          .computed { track, group, x in
            try self.read(track, group) { gatherRows(tokens[group], of: $0, into: x) }
          })
        try work(
          on: ProjectionDescription([description.output]), { $0.feedForward[index].output },
          width: description.output.inputs, rows: tokens, routed: routed,
          .computed { track, group, inner in
            let x = pool.take(rows: tokens[group].count, columns: width)
            try self.read(track, group) { gatherRows(tokens[group], of: $0, into: x) }
            track.forward.inner(x, expert: index, into: inner)
            pool.give(x)
          })
      }
      for track in isLast ? [] : tracks {
        for (index, group) in groups.enumerated() {
          let branch = pool.take(rows: group.rows.count, columns: width)
          try read(track, index) { track.forward.mixture($0, mixture, into: branch) }
          try track.states.update(group.rows) { track.forward.addFeedForward(branch, to: $0) }
          pool.give(branch)
        }
      }
    }

    /// The inputs of layers, for the tokens of one group at a time.
    private enum LayerInputs {
      /// All tokens' stand there already.
      case kept((Track) -> HiddenStates)
      /// Written into a matrix, group by group.
      case computed((Track, Int, Matrix) throws -> Void)
    }

    /// - Parameter count: how many of the group's tokens reach the layers.
    private func use(
      _ inputs: LayerInputs, of track: Track, group: Int, count: Int, width: Int, _ body: (Matrix) throws -> Void
    ) throws {
      switch inputs {
      case .kept(let states): try states(track).read(groups[group].rows, body)
      case .computed(let fill):
        let x = pool.take(rows: count, columns: width)
        defer { pool.give(x) }
        try fill(track, group, x)
        try body(x)
      }
    }

    /// A copy that may be changed, from the pool.
    private func copy(
      _ inputs: LayerInputs, of track: Track, group: Int, count: Int, width: Int
    ) throws -> Matrix {
      let x = pool.take(rows: count, columns: width)
      switch inputs {
      case .kept(let states):
        try states(track).read(groups[group].rows) {
          copyColumns(MatrixColumns($0, from: 0), into: x, at: 0, count: x.rows)
        }
      case .computed(let fill): try fill(track, group, x)
      }
      return x
    }

    /// Collects the evidence of one input, and has the layers that read it quantized where that is the purpose.
    /// - Parameters:
    ///   - rows: for each group the tokens that reach the layers; nil: all.
    ///   - routed: see `LayerProblem.routedTokens`.
    ///   - meetsStream: whether the layer's output is to take the stream to where the original's already is.
    private func work(
      on projection: ProjectionDescription, _ layer: (BlockWeights) -> LoadedLinear, width: Int,
      rows chosen: [[Int]]? = nil, routed: Int? = nil, meetsStream: Bool = false, _ inputs: LayerInputs
    ) throws {
      let wanted = projection.linears.filter(isWanted)
      guard !wanted.isEmpty else { return }
      try meter.begin(wanted[0])
      let share = chosen == nil ? 1 : meter.costs.share(of: block)
      let handOut: LayerHandOut
      switch purpose {
      case .observe(let evidence, let receive):
        let names = wanted.map { EvidencedLayer($0) }
        let input = try observe(names, width: width, rows: chosen, evidence) { group, count, body in
          try use(inputs, of: quantized, group: group, count: count, width: width, body)
        }
        try receive(input)
        return try meter.add(.gather, meter.costs.gather(projection, share: share))
      case .quantize(let quantize, _):
        handOut = LayerHandOut(
          pool: pool, keepsWeights: options.usesOriginalInputs, isWanted: isWanted, quantize: quantize)
      }
      let loaded = layer(quantized.weights)
      var hessian = Hessian(dimension: width)
      let target = original.map { _ in OutputTarget(inputs: width, outputs: meetsStream ? projection.outputs : nil) }
      let heldOut = HeldOutCollection(
        tokens: groups.indices.reduce(0) {
          $0 + (groups[$1].isHeldOut ? chosen?[$1].count ?? groups[$1].rows.count : 0)
        },
        width: width, otherWidth: original == nil ? nil : meetsStream ? projection.outputs : width, pool)
      for (index, group) in groups.enumerated() {
        let count = chosen?[index].count ?? group.rows.count
        guard count > 0 else { continue }
        func aim(_ original: Track) throws -> Matrix {
          meetsStream
            ? try streamAim(of: original, group, bias: loaded.bias)
            : try copy(inputs, of: original, group: index, count: count, width: width)
        }
        if group.isHeldOut {
          let bounds = group.batch.sequences.map { range in
            chosen.map { $0[index].count { $0 < range.lowerBound } } ?? range.lowerBound
          }
          let other = try original.map(aim)
          try use(inputs, of: quantized, group: index, count: count, width: width) {
            heldOut.add($0, other, bounds: bounds)
          }
          if let other { pool.give(other) }
          continue
        }
        try use(inputs, of: quantized, group: index, count: count, width: width) { x in
          do throws(HessianError) {
            try hessian.add(x, workers: options.workers)
          } catch {
            throw EvidenceError(place, wanted.map { EvidencedLayer($0) }, error)
          }
          guard let original, let target else { return }
          let aim = try aim(original)
          if !meetsStream { subtract(x, from: aim, workers: options.workers) }
          target.add(x, aim, workers: options.workers)
          pool.give(aim)
        }
      }
      try meter.add(.gather, meter.costs.gather(projection, share: share))
      try handOut(
        projection, loaded, hessian, target, heldOut.inputs(isAim: meetsStream), scalings, routedTokens: routed)
      heldOut.free()
    }

    /// What a layer should give, without its bias, for the stream to become that of the original model.
    private func streamAim(of original: Track, _ group: Group, bias: [Float]?) throws -> Matrix {
      let aim = pool.take(rows: group.rows.count, columns: width)
      try original.states.read(group.rows) {
        copyColumns(MatrixColumns($0, from: 0), into: aim, at: 0, count: aim.rows)
      }
      try quantized.states.read(group.rows) { subtract($0, from: aim, workers: options.workers) }
      if let bias { subtract(row: bias, from: aim, workers: options.workers) }
      return aim
    }
  }
}
