#include "tune/llama_weights.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <ggml.h>

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <set>

namespace tailor::tune::llama {
namespace {

constexpr std::array<LlamaModuleName, kLlamaModules> kNames = {{
    {"attn_q", "q_proj", "self_attn.q_proj"},
    {"attn_k", "k_proj", "self_attn.k_proj"},
    {"attn_v", "v_proj", "self_attn.v_proj"},
    {"attn_output", "o_proj", "self_attn.o_proj"},
    {"ffn_gate", "gate_proj", "mlp.gate_proj"},
    {"ffn_up", "up_proj", "mlp.up_proj"},
    {"ffn_down", "down_proj", "mlp.down_proj"},
}};

// A hostile file must not make us allocate without bound before its tensors are looked at.
constexpr std::int64_t kMostLayers = 1024;
constexpr std::int64_t kMostWidth = 1 << 20;

/// Pages of the file that have been copied need not stay in memory; they are read again if they are used again.
void forget(const StoredTensor& t) {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(t.bytes.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<std::uintptr_t>(t.bytes.data() + t.bytes.size()) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::string layer_name(std::int64_t layer, std::string_view what) {
  return fmt::format("blk.{}.{}.weight", layer, what);
}

void read_rows(const StoredTensor& t, std::int64_t first, std::int64_t rows, std::int64_t columns, float* out) {
  const std::size_t row_bytes = t.bytes.size() / static_cast<std::size_t>(t.shape.front());
  dequantise(t.ggml_type, t.bytes.data() + static_cast<std::size_t>(first) * row_bytes, rows, columns, out);
}

}  // namespace

const LlamaModuleName& name_of(LlamaModule module) {
  return kNames[static_cast<std::size_t>(module)];
}

std::span<const LlamaModule> modules_of(LinearGroup group) {
  static constexpr std::array kAll = {LlamaModule::kQ,    LlamaModule::kK,  LlamaModule::kV,   LlamaModule::kOutput,
                                      LlamaModule::kGate, LlamaModule::kUp, LlamaModule::kDown};
  const std::span<const LlamaModule> all = kAll;
  switch (group) {
    case LinearGroup::kQkv:
      return all.subspan(0, 3);
    case LinearGroup::kOutput:
      return all.subspan(3, 1);
    case LinearGroup::kGateUp:
      return all.subspan(4, 2);
    case LinearGroup::kDown:
      break;
  }
  return all.subspan(6, 1);
}

std::int64_t out_features(const LlamaConfig& c, LlamaModule module) {
  switch (module) {
    case LlamaModule::kQ:
      return c.heads * c.head_dim;
    case LlamaModule::kK:
    case LlamaModule::kV:
      return c.kv_heads * c.head_dim;
    case LlamaModule::kGate:
    case LlamaModule::kUp:
      return c.ffn;
    default:
      return c.hidden;
  }
}

std::int64_t in_features(const LlamaConfig& c, LlamaModule module) {
  if (module == LlamaModule::kOutput) return c.heads * c.head_dim;
  return module == LlamaModule::kDown ? c.ffn : c.hidden;
}

Result<std::unique_ptr<LlamaWeights>> LlamaWeights::open(const BaseWeights& base, WeightStorage storage) {
  std::unique_ptr<LlamaWeights> weights(new LlamaWeights(base));
  weights->storage_ = storage;
  TAILOR_CHECK(weights->read_config());
  TAILOR_CHECK(weights->read_tensors());
  return weights;
}

Result<std::int64_t> LlamaWeights::integer(const std::string& key, std::optional<std::int64_t> fallback) const {
  const std::string full = "llama." + key;
  const std::optional<double> value = base_.number(full);
  if (!value && fallback) return *fallback;
  if (value && std::abs(*value) < 9e15 && std::floor(*value) == *value) return static_cast<std::int64_t>(*value);
  return Error{ErrorCode::kCorruptData,
               value ? fmt::format("{}: metadata '{}' is {}, expected a whole number", path().string(), full, *value)
                     : fmt::format("{}: metadata '{}' is missing or not a number", path().string(), full),
               "the file is incomplete: fetch it again"};
}

Status LlamaWeights::read_config() {
  const std::string where = path().string();
  if (base_.architecture() != "llama") {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: architecture '{}' cannot be tuned as a decoder yet", where, base_.architecture()),
                 "decoders of the llama architecture can (SmolLM2, Llama, Mistral, TinyLlama, Vicuna)"};
  }
  LlamaConfig& c = config_;
  TAILOR_TRY(c.layers, integer("block_count"));
  TAILOR_TRY(c.hidden, integer("embedding_length"));
  TAILOR_TRY(c.ffn, integer("feed_forward_length"));
  TAILOR_TRY(c.heads, integer("attention.head_count"));
  TAILOR_TRY(c.kv_heads, integer("attention.head_count_kv", c.heads));
  TAILOR_TRY(c.context, integer("context_length"));
  if (c.layers < 1 || c.layers > kMostLayers || c.hidden < 1 || c.hidden > kMostWidth || c.ffn < 1 ||
      c.ffn > kMostWidth || c.heads < 1 || c.heads > c.hidden || c.kv_heads < 1 || c.heads % c.kv_heads != 0) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: impossible shape: {} layers, hidden {}, feed-forward {}, {} heads, {} key heads",
                             where, c.layers, c.hidden, c.ffn, c.heads, c.kv_heads),
                 ""};
  }
  TAILOR_TRY(c.head_dim, integer("attention.key_length", c.hidden / c.heads));
  TAILOR_TRY(c.rotary, integer("rope.dimension_count", c.head_dim));
  if (c.head_dim < 1 || c.head_dim > kMostWidth || c.rotary < 0 || c.rotary > c.head_dim || c.rotary % 2 != 0) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: {} of {} head dimensions cannot be rotated", where, c.rotary, c.head_dim), ""};
  }
  const std::optional<double> eps = base_.number("llama.attention.layer_norm_rms_epsilon");
  if (!eps) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: metadata 'llama.attention.layer_norm_rms_epsilon' is missing", where),
                 "the file is incomplete: fetch it again"};
  }
  c.rms_eps = *eps;
  c.rope_base = base_.number("llama.rope.freq_base").value_or(c.rope_base);
  if (const auto scaling = base_.text("llama.rope.scaling.type"); scaling && *scaling != "none") {
    c.rope_scale = base_.number("llama.rope.scaling.factor").value_or(1);
    if (*scaling != "linear" || !(c.rope_scale > 0)) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: rotary scaling '{}' by {} cannot be tuned yet", where, *scaling, c.rope_scale),
                   "none and linear can"};
    }
  }
  if (base_.number("llama.expert_count").value_or(0) > 0) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: a mixture of experts cannot be tuned yet", where),
                 "use a dense model"};
  }
  return {};
}

Result<const StoredTensor*> LlamaWeights::tensor(const std::string& name, std::vector<std::int64_t> shape) const {
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

Status LlamaWeights::read_tensors() {
  LlamaConfig& c = config_;
  if (base_.has("token_embd.weight")) c.vocab = base_.stored("token_embd.weight").shape.front();
  TAILOR_TRY(embedding_source_, tensor("token_embd.weight", {c.vocab, c.hidden}));
  c.tied = !base_.has("output.weight");
  output_source_ = embedding_source_;
  if (!c.tied) {
    TAILOR_TRY(output_source_, tensor("output.weight", {c.vocab, c.hidden}));
  }

  std::set<std::string, std::less<>> known = {"token_embd.weight", "output.weight", "output_norm.weight",
                                              "rope_freqs.weight"};
  for (std::int64_t layer = 0; layer < c.layers; ++layer) {
    for (const char* what : {"attn_norm", "ffn_norm"}) {
      const std::string name = layer_name(layer, what);
      TAILOR_CHECK(tensor(name, {c.hidden}));
      norms_.push_back(base_.load(name).view({c.hidden}));
      known.insert(name);
    }
    auto& sources = sources_.emplace_back();
    for (std::size_t m = 0; m < kLlamaModules; ++m) {
      const auto module = static_cast<LlamaModule>(m);
      const std::string name = layer_name(layer, name_of(module).gguf);
      TAILOR_TRY(sources[m], tensor(name, {out_features(c, module), in_features(c, module)}));
      known.insert(name);
    }
  }
  TAILOR_CHECK(tensor("output_norm.weight", {c.hidden}));
  norms_.push_back(base_.load("output_norm.weight").view({c.hidden}));
  for (const std::string& name : base_.names()) {
    if (known.contains(name)) continue;
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: tensor '{}' is not part of the llama architecture as Tailor knows it", path().string(), name),
        "this variant cannot be tuned yet"};
  }
  if (base_.has("rope_freqs.weight")) {
    TAILOR_CHECK(tensor("rope_freqs.weight", {c.rotary / 2}));
    const at::Tensor factors = base_.load("rope_freqs.weight");
    for (std::int64_t i = 0; i < c.rotary / 2; ++i) rope_factors_.push_back(factors.data_ptr<float>()[i]);
  }
  if (storage_ == WeightStorage::kBlocks) return {};

  embedding_ = base_.load("token_embd.weight");
  forget(*embedding_source_);
  output_ = embedding_;
  if (!c.tied) {
    output_ = base_.load("output.weight");
    forget(*output_source_);
  }
  // Filled group by group through the same code that serves kBlocks.
  for (std::int64_t layer = 0; layer < c.layers; ++layer) {
    std::array<at::Tensor, kLinearGroups> groups;
    for (std::size_t g = 0; g < kLinearGroups; ++g) {
      groups[g] = group(layer, static_cast<LinearGroup>(g));
      scratch_ = at::Tensor();
    }
    for (const StoredTensor* source : sources_[static_cast<std::size_t>(layer)]) forget(*source);
    groups_.push_back(std::move(groups));
  }
  return {};
}

at::Tensor LlamaWeights::scratch(std::int64_t rows, std::int64_t columns) {
  if (!scratch_.defined() || scratch_.numel() < rows * columns) scratch_ = at::empty({rows * columns}, at::kFloat);
  return scratch_.narrow(0, 0, rows * columns).view({rows, columns});
}

at::Tensor LlamaWeights::group(std::int64_t layer, LinearGroup group) {
  const auto l = static_cast<std::size_t>(layer);
  if (l < groups_.size()) return groups_[l][static_cast<std::size_t>(group)];
  const auto modules = modules_of(group);
  std::int64_t rows = 0;
  for (const LlamaModule m : modules) rows += out_features(config_, m);
  const std::int64_t columns = in_features(config_, modules.front());
  at::Tensor out = scratch(rows, columns);
  float* to = out.data_ptr<float>();
  for (const LlamaModule m : modules) {
    const StoredTensor& source = *sources_[l][static_cast<std::size_t>(m)];
    const std::int64_t out_rows = out_features(config_, m);
    dequantise(source.ggml_type, source.bytes.data(), out_rows, columns, to);
    to += out_rows * columns;
  }
  return out;
}

namespace {

FrozenMatrix matrix_of(const StoredTensor& t) {
  const auto rows = t.shape.front();
  return {t.ggml_type, t.bytes.data(), t.bytes.size() / static_cast<std::size_t>(rows), rows, t.shape.back()};
}
FrozenMatrix matrix_of(const float* data, std::int64_t rows, std::int64_t columns) {
  return {GGML_TYPE_F32, reinterpret_cast<const char*>(data), static_cast<std::size_t>(columns) * sizeof(float), rows,
          columns};
}

}  // namespace

FrozenMatrix LlamaWeights::matrix(std::int64_t layer, LlamaModule module) const {
  const auto l = static_cast<std::size_t>(layer);
  if (l >= groups_.size()) return matrix_of(*sources_[l][static_cast<std::size_t>(module)]);
  for (std::size_t g = 0; g < kLinearGroups; ++g) {
    const float* data = groups_[l][g].data_ptr<float>();
    for (const LlamaModule m : modules_of(static_cast<LinearGroup>(g))) {
      const std::int64_t rows = out_features(config_, m);
      const std::int64_t columns = in_features(config_, m);
      if (m == module) return matrix_of(data, rows, columns);
      data += rows * columns;
    }
  }
  throw Exception({ErrorCode::kInternal, "a module belongs to no group", ""});
}

FrozenMatrix LlamaWeights::output_matrix() const {
  if (!output_.defined()) return matrix_of(*output_source_);
  return matrix_of(output_.data_ptr<float>(), config_.vocab, config_.hidden);
}

at::Tensor LlamaWeights::embed(std::span<const std::int32_t> tokens) const {
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
      std::memcpy(to, embedding_.data_ptr<float>() + token * h, static_cast<std::size_t>(h) * sizeof(float));
    } else {
      read_rows(*embedding_source_, token, 1, h, to);
    }
    to += h;
  }
  return out;
}

std::int64_t LlamaWeights::output_chunk() const {
  return output_.defined() ? config_.vocab : std::min<std::int64_t>(config_.vocab, 8192);
}

at::Tensor LlamaWeights::output_rows(std::int64_t begin, std::int64_t end) {
  if (output_.defined()) return output_.narrow(0, begin, end - begin);
  at::Tensor out = scratch(end - begin, config_.hidden);
  read_rows(*output_source_, begin, end - begin, config_.hidden, out.data_ptr<float>());
  return out;
}

const float* LlamaWeights::rope_table(std::int64_t positions) {
  const std::int64_t have = rope_table_.defined() ? rope_table_.size(0) : 0;
  if (positions > have) {
    const std::int64_t n = std::max(positions, 2 * have);
    const std::int64_t pairs = config_.rotary / 2;
    rope_table_ = at::empty({n, std::max<std::int64_t>(config_.rotary, 1)}, at::kFloat);
    float* to = rope_table_.data_ptr<float>();
    for (std::int64_t p = 0; p < n; ++p) {
      for (std::int64_t i = 0; i < pairs; ++i) {
        // In f32 as the references do it: they round the frequency before they multiply.
        auto frequency = static_cast<float>(
            std::pow(config_.rope_base, -2.0 * static_cast<double>(i) / static_cast<double>(config_.rotary)));
        if (!rope_factors_.empty()) frequency /= static_cast<float>(rope_factors_[static_cast<std::size_t>(i)]);
        const float angle = static_cast<float>(p) / static_cast<float>(config_.rope_scale) * frequency;
        *to++ = static_cast<float>(std::cos(static_cast<double>(angle)));
        *to++ = static_cast<float>(std::sin(static_cast<double>(angle)));
      }
    }
  }
  return rope_table_.data_ptr<float>();
}

}  // namespace tailor::tune::llama
