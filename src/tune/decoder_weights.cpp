#include "tune/decoder_weights.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <ggml.h>

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

namespace tailor::tune::decoder {
namespace {

constexpr const char* kWords = "token_embd.weight";
constexpr const char* kOutput = "output.weight";
constexpr const char* kPositions = "position_embd.weight";
constexpr const char* kRopeFactors = "rope_freqs.weight";

/// Pages of the file that have been copied need not stay in memory; they are read again if they are used again.
void forget(const StoredTensor& t) {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(t.bytes.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<std::uintptr_t>(t.bytes.data() + t.bytes.size()) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

void read_rows(const StoredTensor& t, std::int64_t first, std::int64_t rows, std::int64_t columns, float* out) {
  const std::size_t row_bytes = t.bytes.size() / static_cast<std::size_t>(t.shape.front());
  dequantise(t.ggml_type, t.bytes.data() + static_cast<std::size_t>(first) * row_bytes, rows, columns, out);
}

FrozenMatrix matrix_of(const StoredTensor& t) {
  const auto rows = t.shape.front();
  return {t.ggml_type, t.bytes.data(), t.bytes.size() / static_cast<std::size_t>(rows), rows, t.shape.back()};
}
FrozenMatrix matrix_of(const float* data, std::int64_t rows, std::int64_t columns) {
  return {GGML_TYPE_F32, reinterpret_cast<const char*>(data), static_cast<std::size_t>(columns) * sizeof(float), rows,
          columns};
}

}  // namespace

std::string block_name(std::int64_t layer, std::string_view what, std::string_view kind) {
  return fmt::format("blk.{}.{}.{}", layer, what, kind);
}

Result<std::unique_ptr<DecoderWeights>> DecoderWeights::open(const BaseWeights& base, WeightStorage storage,
                                                             const TensorFilter& trained, ParameterSet* parameters) {
  std::unique_ptr<DecoderWeights> weights(new DecoderWeights(base));
  weights->storage_ = storage;
  TAILOR_TRY(weights->config_, DecoderConfig::read(base));
  TAILOR_CHECK(weights->read_tensors(trained, parameters));
  return weights;
}

Result<const StoredTensor*> DecoderWeights::tensor(const std::string& name, std::vector<std::int64_t> shape) const {
  if (!base_.has(name)) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: tensor '{}' is missing", path().string(), name),
                 "the file is incomplete: fetch it again"};
  }
  const StoredTensor& t = base_.stored(name);
  // Trailing dimensions of one are not written, so [1, n] reads as [n].
  std::vector<std::int64_t> seen = t.shape;
  while (seen.size() < shape.size()) seen.insert(seen.begin(), 1);
  if (seen != shape) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: tensor '{}' should be [{}] but is [{}]", path().string(), name,
                             fmt::join(shape, ", "), fmt::join(t.shape, ", ")),
                 ""};
  }
  return &t;
}

/// Vectors that lie one after another; those that the file has not are zeros, and where it has none the slot stays
/// undefined.
Status DecoderWeights::fill_vectors(Slot& slot, const std::vector<std::string>& names,
                                    const std::vector<std::int64_t>& widths, const TensorFilter& trained,
                                    ParameterSet* parameters) {
  std::vector<at::Tensor> parts;
  std::size_t present = 0, learnt = 0;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!base_.has(names[i])) {
      parts.push_back(at::zeros({widths[i]}, at::kFloat));
      continue;
    }
    TAILOR_CHECK(tensor(names[i], {widths[i]}));
    parts.push_back(base_.load(names[i]).view({widths[i]}));
    known_.push_back(names[i]);
    ++present;
    if (trained && trained(names[i])) ++learnt;
  }
  if (present == 0) return {};
  if (learnt == 0) {
    slot.value = parts.size() == 1 ? parts[0] : at::cat(parts);
    return {};
  }
  std::int64_t all = 0;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!base_.has(names[i])) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: '{}' is missing beside vectors that are trained", path().string(), names[i]), ""};
    }
    // One norm may serve two places.
    if (!parameters->contains(names[i])) parameters->add(names[i], parts[i], {.decay = false});
    all += widths[i];
  }
  bindings_.push_back({&slot, names, {all}});
  return {};
}

Status DecoderWeights::fill_norm(Norm& norm, const std::string& name, std::int64_t width, bool needed,
                                 const TensorFilter& trained, ParameterSet* parameters) {
  if (!needed && !base_.has(name + ".weight")) return {};
  TAILOR_CHECK(tensor(name + ".weight", {width}));
  TAILOR_CHECK(fill_vectors(norm.gamma, {name + ".weight"}, {width}, trained, parameters));
  return fill_vectors(norm.beta, {name + ".bias"}, {width}, trained, parameters);
}

Status DecoderWeights::fill_table(Slot& slot, const std::string& name, const TensorFilter& trained,
                                  ParameterSet* parameters) {
  const StoredTensor& stored = base_.stored(name);
  const bool learnt = trained && trained(name);
  if (!learnt && storage_ == WeightStorage::kBlocks && name != kPositions) return {};
  const at::Tensor value = base_.load(name);
  forget(stored);
  if (!learnt) {
    slot.value = value;
    return {};
  }
  parameters->add(name, value);
  bindings_.push_back({&slot, {name}, value.sizes().vec()});
  return {};
}

Status DecoderWeights::fill_group(std::int64_t layer, LinearGroup group, const TensorFilter& trained,
                                  ParameterSet* parameters) {
  const auto l = static_cast<std::size_t>(layer), g = static_cast<std::size_t>(group);
  std::vector<std::string> weights, biases;
  std::vector<std::int64_t> widths;
  std::size_t learnt = 0;
  for (const Module& m : config_.of(group)) {
    weights.push_back(block_name(layer, m.gguf));
    biases.push_back(block_name(layer, m.gguf, "bias"));
    widths.push_back(m.out);
    TAILOR_TRY(const StoredTensor* source, tensor(weights.back(), {m.out, m.in}));
    sources_[l].push_back(source);
    known_.push_back(weights.back());
    if (trained && trained(weights.back())) ++learnt;
  }
  TAILOR_CHECK(fill_vectors(biases_[l][g], biases, widths, trained, parameters));
  if (learnt == 0) {
    if (storage_ == WeightStorage::kFloat) {
      leaves_[l][g].value = this->group(layer, group);
      scratch_ = at::Tensor();
    }
  } else {
    if (learnt != weights.size()) return Error{ErrorCode::kInternal, "modules of a group are trained together", ""};
    std::int64_t rows = 0;
    for (const std::string& name : weights) {
      parameters->add(name, base_.load(name));
      rows += base_.stored(name).shape.front();
    }
    bindings_.push_back({&leaves_[l][g], weights, {rows, config_.of(group).front().in}});
  }
  if (learnt > 0 || storage_ == WeightStorage::kFloat) {
    for (const std::string& name : weights) forget(base_.stored(name));
  }
  return {};
}

Status DecoderWeights::read_tensors(const TensorFilter& trained, ParameterSet* parameters) {
  DecoderConfig& c = config_;
  if (base_.has(kWords)) c.vocab = base_.stored(kWords).shape.front();
  TAILOR_TRY(embedding_source_, tensor(kWords, {c.vocab, c.hidden}));
  c.tied = !base_.has(kOutput);
  output_source_ = embedding_source_;
  if (!c.tied) {
    TAILOR_TRY(output_source_, tensor(kOutput, {c.vocab, c.hidden}));
  }
  known_ = {kWords, kOutput};
  TAILOR_CHECK(fill_table(embedding_, kWords, trained, parameters));
  if (!c.tied) TAILOR_CHECK(fill_table(output_, kOutput, trained, parameters));
  if (c.positions == Positions::kLearned) {
    TAILOR_CHECK(tensor(kPositions, {c.context, c.hidden}));
    TAILOR_CHECK(fill_table(positions_, kPositions, trained, parameters));
    known_.push_back(kPositions);
  }
  TAILOR_CHECK(fill_norm(embedding_norm_, "token_embd_norm", c.hidden, false, trained, parameters));

  const auto layers = static_cast<std::size_t>(c.layers);
  sources_.resize(layers);  // slots keep their addresses from here on
  leaves_.resize(layers);
  biases_.resize(layers);
  norms_.resize(layers);
  for (std::int64_t l = 0; l < c.layers; ++l) {
    LayerNorms& norms = norms_[static_cast<std::size_t>(l)];
    const auto fill = [&](Norm& norm, const char* what, std::int64_t width, bool needed) {
      return fill_norm(norm, fmt::format("blk.{}.{}", l, what), width, needed, trained, parameters);
    };
    if (c.architecture == "falcon") {  // the first of two norms is the feed-forward's; one alone serves both
      const bool two = base_.has(block_name(l, "attn_norm_2"));
      TAILOR_CHECK(fill(norms.feed_forward, "attn_norm", c.hidden, true));
      TAILOR_CHECK(fill(norms.attention, two ? "attn_norm_2" : "attn_norm", c.hidden, true));
    } else {
      TAILOR_CHECK(fill(norms.attention, "attn_norm", c.hidden, true));
      TAILOR_CHECK(fill(norms.feed_forward, "ffn_norm", c.hidden, true));
    }
    TAILOR_CHECK(fill(norms.post_attention, "post_attention_norm", c.hidden, c.post_norms));
    TAILOR_CHECK(fill(norms.post_feed_forward, "post_ffw_norm", c.hidden, c.post_norms));
    const bool heads = c.architecture == "qwen3" || c.architecture == "gemma3";
    TAILOR_CHECK(fill(norms.q, "attn_q_norm", c.head_dim, heads));
    TAILOR_CHECK(fill(norms.k, "attn_k_norm", c.head_dim, heads));
    for (std::size_t g = 0; g < kLinearGroups; ++g)
      TAILOR_CHECK(fill_group(l, static_cast<LinearGroup>(g), trained, parameters));
  }
  TAILOR_CHECK(fill_norm(final_norm_, "output_norm", c.hidden, true, trained, parameters));
  if (base_.has(kRopeFactors)) {
    TAILOR_CHECK(tensor(kRopeFactors, {c.rotary / 2}));
    const at::Tensor factors = base_.load(kRopeFactors);
    for (std::int64_t i = 0; i < c.rotary / 2; ++i) rope_factors_.push_back(factors.data_ptr<float>()[i]);
    known_.emplace_back(kRopeFactors);
  }
  rope_[0] = {{}, c.rope_base, c.rope_scale};
  rope_[1] = c.local_rope_base > 0 ? RopeTable{{}, c.local_rope_base, 1} : rope_[0];
  const std::set<std::string_view> known(known_.begin(), known_.end());
  for (const std::string& name : base_.names()) {
    if (known.contains(name)) continue;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: tensor '{}' is not part of the {} architecture as Tailor knows it", path().string(),
                             name, c.architecture),
                 "this variant cannot be tuned yet"};
  }
  if (c.tied) output_ = embedding_;
  return {};
}

Status DecoderWeights::train_rows(std::vector<std::int32_t> ids, ParameterSet& parameters) {
  if (ids.empty()) return {};
  if (parameters.contains(kWords) || parameters.contains(kOutput)) {
    return Error{ErrorCode::kInvalidArgument,
                 "lora.trained_tokens: the table of words or the output layer is trained whole already",
                 "leave trained_tokens or modules_to_save out"};
  }
  std::vector<std::int64_t> rows(ids.begin(), ids.end());
  for (const std::int64_t id : rows) {
    if (id >= 0 && id < config_.vocab) continue;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("lora.trained_tokens: there is no token {}, {} knows {}", id, path().filename().string(),
                             config_.vocab),
                 "add the token to the model first (added_tokens)"};
  }
  const auto add = [&](Slot& slot, const char* table, const char* name) {
    parameters.add(name, base_.load_rows(table, rows));
    bindings_.push_back({&slot, {name}, {static_cast<std::int64_t>(rows.size()), config_.hidden}});
  };
  add(rows_.embedding, kWords, kWordRows);
  if (!config_.tied) add(rows_.output, kOutput, kOutputRows);
  rows_.ids = std::move(ids);
  rows_.index = at::tensor(rows, at::kLong);
  return {};
}

void DecoderWeights::bind(const ParameterSet& parameters) {
  for (const Binding& binding : bindings_) {
    const std::int64_t offset = parameters.at(binding.names[0]).offset;
    std::int64_t count = 0;
    for (const std::string& name : binding.names) {
      const Parameter& p = parameters.at(name);
      if (p.offset != offset + count)
        throw Exception({ErrorCode::kInternal, name + " does not lie beside its neighbours", ""});
      count += p.value.numel();
    }
    binding.slot->value =
        parameters.flat_values().narrow(0, offset, count).view(binding.shape).detach().requires_grad_();
    binding.slot->grad = parameters.flat_grad().narrow(0, offset, count).view(binding.shape);
  }
  if (config_.tied) output_ = embedding_;
  if (config_.tied) rows_.output = rows_.embedding;
}

at::Tensor DecoderWeights::scratch(std::int64_t rows, std::int64_t columns) {
  if (!scratch_.defined() || scratch_.numel() < rows * columns) scratch_ = at::empty({rows * columns}, at::kFloat);
  return scratch_.narrow(0, 0, rows * columns).view({rows, columns});
}

at::Tensor DecoderWeights::group(std::int64_t layer, LinearGroup group) {
  const auto l = static_cast<std::size_t>(layer);
  if (const Slot& leaf = leaves_[l][static_cast<std::size_t>(group)]; leaf.defined()) return leaf.value.detach();
  const auto modules = config_.of(group);
  std::int64_t rows = 0;
  for (const Module& m : modules) rows += m.out;
  const std::int64_t columns = modules.front().in;
  at::Tensor out = scratch(rows, columns);
  float* to = out.data_ptr<float>();
  for (const Module& m : modules) {
    const StoredTensor& source = *sources_[l][config_.index(m)];
    dequantise(source.ggml_type, source.bytes.data(), m.out, columns, to);
    to += m.out * columns;
  }
  return out;
}

at::Tensor DecoderWeights::group_grad(std::int64_t layer, LinearGroup group) const {
  return leaves_[static_cast<std::size_t>(layer)][static_cast<std::size_t>(group)].grad;
}

FrozenMatrix DecoderWeights::matrix(std::int64_t layer, std::size_t module) const {
  const auto l = static_cast<std::size_t>(layer);
  const Module& wanted = config_.modules[module];
  const Slot& leaf = leaves_[l][static_cast<std::size_t>(wanted.group)];
  if (!leaf.defined()) return matrix_of(*sources_[l][module]);
  const float* data = leaf.value.data_ptr<float>();
  for (const Module& m : config_.of(wanted.group)) {
    if (config_.index(m) == module) break;
    data += m.out * m.in;
  }
  return matrix_of(data, wanted.out, wanted.in);
}

FrozenMatrix DecoderWeights::output_matrix() const {
  if (!output_.defined()) return matrix_of(*output_source_);
  return matrix_of(output_.value.data_ptr<float>(), config_.vocab, config_.hidden);
}

at::Tensor DecoderWeights::embed(std::span<const std::int32_t> tokens) const {
  const std::int64_t h = config_.hidden;
  at::Tensor out = at::empty({static_cast<std::int64_t>(tokens.size()), h}, at::kFloat);
  float* to = out.data_ptr<float>();
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= config_.vocab) {
      throw Exception({ErrorCode::kInvalidArgument,
                       fmt::format("token {} is outside the model's vocabulary of {}", token, config_.vocab),
                       "the rows were tokenised for another model"});
    }
    if (embedding_.defined()) {
      std::memcpy(to, embedding_.value.data_ptr<float>() + token * h, static_cast<std::size_t>(h) * sizeof(float));
    } else {
      read_rows(*embedding_source_, token, 1, h, to);
    }
    to += h;
  }
  return out;
}

std::int64_t DecoderWeights::output_chunk() const {
  return output_.defined() ? config_.vocab : std::min<std::int64_t>(config_.vocab, 8192);
}

at::Tensor DecoderWeights::output_rows(std::int64_t begin, std::int64_t end) {
  if (output_.defined()) return output_.value.detach().narrow(0, begin, end - begin);
  at::Tensor out = scratch(end - begin, config_.hidden);
  read_rows(*output_source_, begin, end - begin, config_.hidden, out.data_ptr<float>());
  return out;
}

const float* DecoderWeights::rope_table(std::int64_t positions, bool local) {
  RopeTable& table = rope_[local ? 1 : 0];
  const std::int64_t have = table.values.defined() ? table.values.size(0) : 0;
  if (positions > have) {
    const std::int64_t n = std::max(positions, 2 * have);
    const std::int64_t pairs = config_.rotary / 2;
    table.values = at::empty({n, std::max<std::int64_t>(config_.rotary, 1)}, at::kFloat);
    float* to = table.values.data_ptr<float>();
    for (std::int64_t p = 0; p < n; ++p) {
      for (std::int64_t i = 0; i < pairs; ++i) {
        // In f32 as the references do it: they round the frequency before they multiply.
        auto frequency = static_cast<float>(
            std::pow(table.base, -2.0 * static_cast<double>(i) / static_cast<double>(config_.rotary)));
        if (!rope_factors_.empty()) frequency /= static_cast<float>(rope_factors_[static_cast<std::size_t>(i)]);
        const float angle = static_cast<float>(p) / static_cast<float>(table.scale) * frequency;
        *to++ = static_cast<float>(std::cos(static_cast<double>(angle)));
        *to++ = static_cast<float>(std::sin(static_cast<double>(angle)));
      }
    }
  }
  return table.values.data_ptr<float>();
}

}  // namespace tailor::tune::decoder
