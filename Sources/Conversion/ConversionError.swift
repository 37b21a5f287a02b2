import Checkpoints
import Packing
import Quantization
import Reports

/// Why a conversion could not be done, beyond defects of the checkpoint itself.
package enum ConversionError: Error, Hashable, CustomStringConvertible {
  case outputExists(String)
  case outputIsNotAModel(String)
  case outputIsSource(String)
  case inUse(String)
  case otherConversion(String, kept: String, differences: [String])
  case cannotCreate(String, String)
  case writeFailed(String, String)
  case alreadyPacked(String)
  case notPacked(String)
  case nameCollision(String, member: String)
  case rowTooLong(file: String, tensor: String, length: Int)
  case notFinite(file: String, tensor: String, index: [Int], value: String)
  case scaleOverflow(file: String, tensor: String, index: [Int], scale: Float, type: String)
  case outlierOverflow(file: String, tensor: String, index: [Int], value: Float, type: String)
  case otherInputs(file: String, tensor: String, inputs: Int, found: Int)
  case noStatistics(String)
  case foldedOverflow(tensor: String, value: String)
  case needsModel(method: String, reason: String)
  case tooLittleMemory(limit: String, work: String, needed: String, parts: [String], advice: String)
  case tooLittleAddressSpace(limit: String, needed: String)
  case tooLargeToDistill(weights: Int, needed: Int, limit: Int)
  case nothingToQuantize(String)
  /// What a runtime's layout cannot hold.
  case layout(LayoutError)
  case noSuchTensor(String, in: String, similar: [String])
  case noSuchValues(tensor: String, slice: String, shape: [Int])
  case differentTensor(String, packed: String, source: String)
  case sizesDoNotAdd(String, expected: Int, found: Int)
  case cancelled

  package var description: String { lines.joined(separator: "\n") }

  /// What is to be said, and lines of details after it.
  package var lines: [String] {
    switch self {
    case .otherConversion(_, _, let differences):
      let more = differences.count > 8 ? ["  and \(differences.count - 8) more"] : []
      return [message] + differences.prefix(8).map { "  \($0)" } + more
    case .tooLittleMemory(_, _, _, let parts, let advice): return [message] + parts.map { "  \($0)" } + [advice]
    default: return [message]
    }
  }

  private var message: String {
    switch self {
    case .outputExists(let path): "\(path): exists already; choose another name, or pass --overwrite to replace it"
    case .outputIsNotAModel(let path):
      "\(path): is not empty and holds no model, so --overwrite leaves it alone; remove it yourself if you mean it"
    case .outputIsSource(let path): "\(path): source and output are the same folder; choose another output"
    case .inUse(let path):
      "\(path): another process is writing it; wait for that to end, stop it, or choose another output"
    case .otherConversion(let path, let kept, _):
      "\(path): an interrupted run in \(kept) was another one; pass --restart to discard what it has done, or go on with"
        + " it by its own command. What differs:"
    case .cannotCreate(let path, let why): "\(path): cannot be created: \(why)"
    case .writeFailed(let path, let why): "\(path): writing failed: \(why)"
    case .alreadyPacked(let path):
      "\(path): is quantized already; `convert-model unpack` turns it back into an ordinary checkpoint first"
    case .notPacked(let path):
      "\(path): is not a folder written by convert-model (it has no quantization_manifest.json), nor one in the layout of"
        + " a runtime"
    case .nameCollision(let tensor, let member):
      "tensor '\(tensor.printable)': would be stored as '\(member.printable)', a name the checkpoint uses for another"
        + " tensor; leave it alone with --exclude"
    case .rowTooLong(let file, let tensor, let length):
      "\(file): tensor '\(tensor.printable)': its rows of \(length) elements are too long for a tile; leave it alone"
        + " with --exclude, or give it one scale with --override 'NAME: group-size=tensor'"
    case .notFinite(let file, let tensor, let index, let value):
      "\(file): tensor '\(tensor.printable)': found \(value) at \(index), expected finite weights; pass"
        + " --allow-nonfinite keep to leave such tensors as they are"
    case .scaleOverflow(let file, let tensor, let index, let scale, let type):
      "\(file): tensor '\(tensor.printable)': the scale of the group at \(index) is beyond the range of \(type)"
        + " (found \(scale)); choose --scale-type bf16 or f32"
    case .outlierOverflow(let file, let tensor, let index, let value, let type):
      "\(file): tensor '\(tensor.printable)': found \(value) at \(index), in an outlier column that is to be stored as"
        + " \(type), beyond whose range it is; choose --scale-type bf16, and outlier columns are stored as BF16"
    case .otherInputs(let file, let tensor, let inputs, let found):
      "\(file): tensor '\(tensor.printable)' has \(inputs) inputs, but its evidence is of \(found): it is another model's"
    case .noStatistics(let method):
      "\(method): nothing is known of the inputs of any layer, by which it tells outlier features: the layers are stored"
        + " [inputs, outputs], as GPT-2's are, or there was no calibration. Take absmax, which needs none"
    case .foldedOverflow(let tensor, let value):
      "tensor '\(tensor.printable)': scaled, it would hold \(value) in its type; exclude the layers that read it from"
        + " quantization with --exclude, or leave out the scaling"
    case .needsModel(let method, let reason):
      "\(method) runs the model, which cannot be done: \(reason). Methods that need no activations: absmax, zero-point,"
        + " nf4, fp4, hqq"
    case .layout(let error): error.description
    case .tooLittleMemory(let limit, let work, let needed, _, _):
      "--max-memory: \(limit) cannot hold this \(work), which may take \(needed):"
    case .tooLittleAddressSpace(let limit, let needed):
      "the system allows this process \(limit) of addresses (ulimit -v), and it may reserve \(needed), most of which it never"
        + " touches: raise that limit; --max-memory bounds what is really used"
    case .tooLargeToDistill(let weights, let needed, let limit):
      "--distill keeps all \(weights) learned weights in memory, with their gradients: \(needed) bytes, of \(limit) that"
        + " may be used; leave it out, or raise --max-memory if there is more"
    case .nothingToQuantize(let path):
      "\(path): no tensor is left to quantize: the patterns, or the types of the tensors, keep all of them"
    case .noSuchTensor(let name, let path, let similar):
      "\(path): no tensor '\(name.printable)'"
        + (similar.isEmpty ? "" : "; did you mean \(similar.map { "'\($0.printable)'" }.joined(separator: ", "))?")
    case .noSuchValues(let tensor, let slice, let shape):
      "tensor '\(tensor.printable)': its shape is \(shape), of which '\(slice.printable)' is no part of at most"
        + " \(TensorSlice.limit) values; give a range for each dimension, such as 0:4,0:8"
    case .differentTensor(let name, let packed, let source):
      "tensor '\(name.printable)': packed from \(packed), but the source to compare with has \(source)"
    case .sizesDoNotAdd(let path, let expected, let found):
      "\(path): the file has \(found) bytes, but its header and tensors add up to \(expected)"
    case .cancelled: "stopped; nothing was written"
    }
  }
}
