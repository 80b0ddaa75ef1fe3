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
#include <numbers>
#include <set>

namespace tailor::tune::decoder {
namespace {

constexpr const char* kWords = "token_embd.weight";
constexpr const char* kOutput = "output.weight";
constexpr const char* kPositions = "position_embd.weight";
constexpr std::int64_t kRoundedAtOnce = std::int64_t{1} << 20;  // numbers

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

bool is_bf16(const at::Tensor& t) {
  return t.defined() && t.scalar_type() == at::kBFloat16;
}

/// Rounds the tensor into `to` [rows, columns], some rows at a time.
void read_rounded(const StoredTensor& t, at::Tensor to) {
  const std::int64_t rows = to.size(0), columns = to.size(1);
  const std::int64_t most = std::max<std::int64_t>(1, kRoundedAtOnce / columns);
  at::Tensor part = at::empty({std::min(rows, most), columns}, at::kFloat);
  for (std::int64_t first = 0; first < rows; first += most) {
    const std::int64_t n = std::min(most, rows - first);
    read_rows(t, first, n, columns, part.data_ptr<float>());
    to.narrow(0, first, n).copy_(part.narrow(0, 0, n));
  }
}

FrozenMatrix matrix_of(const StoredTensor& t) {
  const auto rows = t.shape.front();
  return {t.ggml_type, t.bytes.data(), t.bytes.size() / static_cast<std::size_t>(rows), rows, t.shape.back()};
}
/// Rows [first, first + rows) of a matrix in memory.
FrozenMatrix matrix_of(const at::Tensor& kept, std::int64_t first, std::int64_t rows) {
  const std::int64_t columns = kept.size(1);
  const std::size_t row_bytes = static_cast<std::size_t>(columns) * kept.element_size();
  return {is_bf16(kept) ? GGML_TYPE_BF16 : GGML_TYPE_F32,
          static_cast<const char*>(kept.const_data_ptr()) + static_cast<std::size_t>(first) * row_bytes, row_bytes,
          rows, columns};
}

/// By pair: the share of its turn that is not slowed down, from 1 (fast pairs) to 0. Section 3.2 of the paper, with its
/// bounds of 32 and 1 turns over the original context, whole pairs as in llama.cpp and transformers.
std::vector<double> yarn_shares(const DecoderConfig& c, double base) {
  constexpr double kFast = 32, kSlow = 1;
  const auto rotary = static_cast<double>(c.rotary);
  const auto pair_of = [&](double turns) {
    return rotary * std::log(static_cast<double>(c.original_context) / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(base));
  };
  const double low = std::max(0.0, std::floor(pair_of(kFast)));
  const double high = std::min(rotary - 1, std::ceil(pair_of(kSlow)));
  std::vector<double> shares;
  for (std::int64_t i = 0; i < c.rotary / 2; ++i)
    shares.push_back(1 - std::clamp((static_cast<double>(i) - low) / std::max(0.001, high - low), 0.0, 1.0));
  return shares;
}

}  // namespace

std::string block_name(std::int64_t layer, std::string_view what, std::string_view kind) {
  return fmt::format("blk.{}.{}.{}", layer, what, kind);
}

Result<std::unique_ptr<DecoderWeights>> DecoderWeights::open(const BaseWeights& base, WeightStorage storage,
                                                             const TensorFilter& trained, ParameterSet* parameters,
                                                             const at::Device& device) {
  std::unique_ptr<DecoderWeights> weights(new DecoderWeights(base, device));
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
    slot.value = (parts.size() == 1 ? parts[0] : at::cat(parts)).to(device_);
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
  bindings_.add(slot, names, {all});
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
  if (!learnt && storage_ == WeightStorage::kBf16 && name != kPositions) {
    slot.value = at::empty(stored.shape, at::kBFloat16);
    read_rounded(stored, slot.value);
    slot.value = slot.value.to(device_);
    forget(stored);
    return {};
  }
  const at::Tensor value = base_.load(name);
  forget(stored);
  if (!learnt) {
    slot.value = value.to(device_);
    return {};
  }
  parameters->add(name, value);
  bindings_.add(slot, {name}, value.sizes().vec());
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
    if (storage_ == WeightStorage::kBf16) {
      const auto modules = config_.of(group);
      std::int64_t rows = 0;
      for (const Module& m : modules) rows += m.out;
      at::Tensor rounded = at::empty({rows, modules.front().in}, at::kBFloat16);
      rows = 0;
      for (const Module& m : modules) {
        read_rounded(*sources_[l][config_.index(m)], rounded.narrow(0, rows, m.out));
        rows += m.out;
      }
      leaves_[l][g].value = rounded.to(device_);
    }
  } else {
    if (learnt != weights.size()) return Error{ErrorCode::kInternal, "modules of a group are trained together", ""};
    std::int64_t rows = 0;
    for (const std::string& name : weights) {
      parameters->add(name, base_.load(name));
      rows += base_.stored(name).shape.front();
    }
    bindings_.add(leaves_[l][g], weights, {rows, config_.of(group).front().in});
  }
  if (learnt > 0 || storage_ != WeightStorage::kBlocks) {
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
  for (const char* name : {kRopeFactors, kShortFactors, kLongFactors}) {  // the first counts, as in llama.cpp
    if (!base_.has(name)) continue;
    TAILOR_CHECK(tensor(name, {c.rotary / 2}));
    known_.emplace_back(name);
    if (!rope_factors_.empty() || name == kLongFactors) continue;
    const at::Tensor factors = base_.load(name);
    for (std::int64_t i = 0; i < c.rotary / 2; ++i) rope_factors_.push_back(factors.data_ptr<float>()[i]);
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
    bindings_.add(slot, {name}, {static_cast<std::int64_t>(rows.size()), config_.hidden});
  };
  add(rows_.embedding, kWords, kWordRows);
  if (!config_.tied) add(rows_.output, kOutput, kOutputRows);
  rows_.ids = std::move(ids);
  rows_.index = at::tensor(rows, at::kLong).to(device_);
  return {};
}

void DecoderWeights::bind(const ParameterSet& parameters) {
  bindings_.bind(parameters);
  if (config_.tied) output_ = embedding_;
  if (config_.tied) rows_.output = rows_.embedding;
}

at::Tensor DecoderWeights::scratch(std::int64_t rows, std::int64_t columns) {
  if (!scratch_.defined() || scratch_.numel() < rows * columns) scratch_ = at::empty({rows * columns}, at::kFloat);
  return scratch_.narrow(0, 0, rows * columns).view({rows, columns});
}

at::Tensor DecoderWeights::group(std::int64_t layer, LinearGroup group) {
  const auto l = static_cast<std::size_t>(layer);
  if (const Slot& leaf = leaves_[l][static_cast<std::size_t>(group)]; leaf.defined()) {
    if (!is_bf16(leaf.value)) return leaf.value.detach();
    if (!device_.is_cpu()) return leaf.value.to(at::kFloat);
    return scratch(leaf.value.size(0), leaf.value.size(1)).copy_(leaf.value);
  }
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
  return out.to(device_);
}

at::Tensor DecoderWeights::group_grad(std::int64_t layer, LinearGroup group) const {
  return leaves_[static_cast<std::size_t>(layer)][static_cast<std::size_t>(group)].grad;
}

FrozenMatrix DecoderWeights::matrix(std::int64_t layer, std::size_t module) const {
  const auto l = static_cast<std::size_t>(layer);
  const Module& wanted = config_.modules[module];
  const Slot& leaf = leaves_[l][static_cast<std::size_t>(wanted.group)];
  if (!leaf.defined()) return matrix_of(*sources_[l][module]);
  std::int64_t first = 0;
  for (const Module& m : config_.of(wanted.group)) {
    if (config_.index(m) == module) break;
    first += m.out;
  }
  return matrix_of(leaf.value, first, wanted.out);
}

at::Tensor DecoderWeights::as_kept(const std::string& name) const {
  const at::Tensor value = base_.load(name);
  const bool rounded = storage_ == WeightStorage::kBf16 && value.dim() == 2 && name != kPositions;
  return rounded ? value.to(at::kBFloat16).to(at::kFloat) : value;
}

FrozenMatrix DecoderWeights::output_matrix() const {
  if (!output_.defined()) return matrix_of(*output_source_);
  return matrix_of(output_.value, 0, config_.vocab);
}

at::Tensor DecoderWeights::embed(std::span<const std::int32_t> tokens) const {
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= config_.vocab) {
      throw Exception({ErrorCode::kInvalidArgument,
                       fmt::format("token {} is outside the model's vocabulary of {}", token, config_.vocab),
                       "the rows were tokenised for another model"});
    }
  }
  const std::int64_t h = config_.hidden;
  if (embedding_.defined() && !device_.is_cpu()) {
    const at::Tensor ids = at::tensor(std::vector<std::int64_t>(tokens.begin(), tokens.end()), at::kLong).to(device_);
    return embedding_.value.detach().index_select(0, ids).to(at::kFloat);
  }
  at::Tensor out = at::empty({static_cast<std::int64_t>(tokens.size()), h}, at::kFloat);
  float* to = out.data_ptr<float>();
  for (const std::int32_t token : tokens) {
    if (is_bf16(embedding_.value)) {
      unpack_row(matrix_of(embedding_.value, 0, config_.vocab), token, 0, h, to);
    } else if (embedding_.defined()) {
      std::memcpy(to, embedding_.value.data_ptr<float>() + token * h, static_cast<std::size_t>(h) * sizeof(float));
    } else {
      read_rows(*embedding_source_, token, 1, h, to);
    }
    to += h;
  }
  return out.to(device_);
}

std::int64_t DecoderWeights::output_chunk() const {
  const bool whole = output_.defined() && !is_bf16(output_.value);
  return whole ? config_.vocab : std::min<std::int64_t>(config_.vocab, 8192);
}

at::Tensor DecoderWeights::output_rows(std::int64_t begin, std::int64_t end) {
  at::Tensor kept = output_.value;
  if (kept.defined()) kept = kept.detach().narrow(0, begin, end - begin);
  if (kept.defined() && !is_bf16(kept)) return kept;
  if (kept.defined() && !device_.is_cpu()) return kept.to(at::kFloat);
  at::Tensor out = scratch(end - begin, config_.hidden);
  if (kept.defined()) return out.copy_(kept);
  read_rows(*output_source_, begin, end - begin, config_.hidden, out.data_ptr<float>());
  return out.to(device_);
}

const at::Tensor& DecoderWeights::rope_table(std::int64_t positions, bool local) {
  RopeTable& table = rope_[local ? 1 : 0];
  const std::int64_t width = std::max<std::int64_t>(config_.rotary, 1), pairs = config_.rotary / 2;
  const std::int64_t have = table.values.defined() ? table.values.size(0) - 1 : 0;
  if (positions > have) {
    const std::int64_t n = std::max(positions, 2 * have);
    const bool yarn = config_.yarn && pairs > 0;
    const std::vector<double> shares = yarn ? yarn_shares(config_, table.base) : std::vector<double>();
    const float divisor = yarn ? 1.0f : static_cast<float>(table.scale);
    std::vector<float> frequencies;
    for (std::int64_t i = 0; i < pairs; ++i) {
      // In f32 as the references do it: they round the frequency before they multiply.
      auto frequency =
          static_cast<float>(std::pow(table.base, -2.0 * static_cast<double>(i) / static_cast<double>(config_.rotary)));
      if (!rope_factors_.empty()) frequency /= static_cast<float>(rope_factors_[static_cast<std::size_t>(i)]);
      if (yarn) {
        const double share = shares[static_cast<std::size_t>(i)];
        frequency = static_cast<float>(frequency * ((1 - share) / table.scale + share));
      }
      frequencies.push_back(frequency);
    }
    table.values = at::empty({n + 1, width}, at::kFloat);
    float* to = table.values.data_ptr<float>();
    for (std::int64_t i = 0; i < pairs; ++i) {
      *to++ = 1;
      *to++ = 0;
    }
    for (std::int64_t p = 0; p < n; ++p) {
      for (const float frequency : frequencies) {
        const float angle = static_cast<float>(p) / divisor * frequency;
        *to++ = static_cast<float>(config_.rope_attention * std::cos(static_cast<double>(angle)));
        *to++ = static_cast<float>(config_.rope_attention * std::sin(static_cast<double>(angle)));
      }
    }
    table.values = table.values.to(device_);
  }
  return table.values;
}

}  // namespace tailor::tune::decoder
