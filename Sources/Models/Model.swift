import Checkpoints
import Kernels

/// A model that can be run: its description, checked against the tensors of a checkpoint.
package struct Model: Sendable {
  package let description: ModelDescription
  package let source: any WeightSource
  /// `config.json`.
  package let configuration: JSONValue
  /// Tensors that the forward pass does not use, such as extra heads; sorted.
  package let unusedTensors: [String]

  /// - Parameter configuration: `config.json`, nil where there is none.
  /// - Throws: `ModelError` for an architecture that is not known, a wrong configuration, a tensor that is missing or
  ///   has another shape.
  package init(_ source: any WeightSource, configuration document: JSONValue?) throws(ModelError) {
    let file = source.place + "/config.json"
    guard let document else { throw ModelError(file: source.place, .noConfiguration) }
    let configuration = ModelConfiguration(document, file: file)
    let modelType = try configuration.text("model_type")
    guard let architecture = Architecture.named(modelType) else {
      let known = Architecture.all.flatMap(\.modelTypes).sorted()
      throw ModelError(file: file, .unknownType(modelType, known: known))
    }
    let names = source.tensorNames
    let outline = try architecture.outline(configuration, TensorNames(names))
    var audit = TensorAudit(source: source)
    try audit.check(outline.embedding)
    var blocks: [BlockDescription] = []
    for layer in 0..<outline.blockCount {
      let block = try outline.block(layer)
      try audit.check(block)
      blocks.append(block)
    }
    try audit.check(outline.head)
    description = ModelDescription(
      modelType: modelType, hiddenSize: outline.hiddenSize, embedding: outline.embedding, blocks: blocks,
      head: outline.head)
    self.source = source
    self.configuration = document
    unusedTensors = names.filter { !audit.used.contains($0) && !Self.isBuffer($0) }.sorted()
  }

  /// Constants that older checkpoints carry along: masks, rotary frequencies, position numbers.
  private static func isBuffer(_ name: String) -> Bool {
    [".attn.bias", ".attention.bias", ".masked_bias", ".rotary_emb.inv_freq", "position_ids"].contains {
      name.hasSuffix($0)
    }
  }
}

/// Checks that the tensors of a description exist with their shapes, and notes which are used.
private struct TensorAudit {
  let source: any WeightSource
  var used: Set<String> = []

  private mutating func check(_ name: String?, _ shape: [Int]) throws(ModelError) {
    guard let name else { return }
    guard let found = source.shape(of: name) else {
      throw ModelError(file: source.place, name, .missingTensor(shape: shape))
    }
    guard found == shape else {
      throw ModelError(file: source.place, name, .wrongShape(found: found, expected: shape))
    }
    used.insert(name)
  }

  private mutating func check(_ linear: LinearDescription?) throws(ModelError) {
    guard let linear else { return }
    try check(linear.weight, linear.shape)
    try check(linear.bias, [linear.outputs])
  }

  private mutating func check(_ projection: ProjectionDescription) throws(ModelError) {
    for linear in projection.linears { try check(linear) }
  }

  private mutating func check(_ norm: NormDescription?) throws(ModelError) {
    guard let norm else { return }
    try check(norm.weight, [norm.width])
    try check(norm.bias, [norm.width])
  }

  private mutating func check(_ norms: BranchNorms) throws(ModelError) {
    try check(norms.before)
    try check(norms.after)
    try check(norms.onSum)
  }

  mutating func check(_ embedding: EmbeddingDescription) throws(ModelError) {
    try check(embedding.tokens, [embedding.vocabulary, embedding.width])
    try check(embedding.projection)
    let hidden = embedding.projection?.outputs ?? embedding.width
    if let table = embedding.positions?.table { try check(table.name, [table.rows, hidden]) }
    if let table = embedding.tokenType { try check(table.name, [table.rows, hidden]) }
    try check(embedding.norm)
  }

  mutating func check(_ head: HeadDescription) throws(ModelError) {
    try check(head.norm)
    try check(head.projection)
    try check(head.linear)
  }

  mutating func check(_ block: BlockDescription) throws(ModelError) {
    try check(block.attentionNorms)
    try check(block.attention.input)
    try check(block.attention.queryNorm)
    try check(block.attention.keyNorm)
    try check(block.attention.output)
    if let bias = block.attention.relativeBias { try check(bias.table, [bias.buckets, bias.heads]) }
    try check(block.feedForwardNorms)
    switch block.feedForward {
    case .gated(let input, let output, _):
      try check(input)
      try check(output)
    case .plain(let input, let output, _):
      try check(input)
      try check(output)
    case .mixture(let mixture):
      try check(mixture.router)
      for expert in mixture.experts {
        try check(expert.input)
        try check(expert.output)
      }
    }
  }
}
