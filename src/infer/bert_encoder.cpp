#include "infer/bert_encoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "core/bottleneck_file.h"
#include "core/fast_math.h"
#include "core/safetensors.h"
#include "model/gguf_file.h"

namespace tailor {
namespace {

constexpr std::size_t kLanes = 8;  // partial sums, so that the compiler may vectorise without reordering

float sum_of(const float* x, std::size_t n) {
  float lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t k = 0; k < kLanes; ++k) lanes[k] += x[i + k];
  }
  float sum = 0;
  for (; i < n; ++i) sum += x[i];
  for (const float l : lanes) sum += l;
  return sum;
}

float square_distance(const float* x, float mean, std::size_t n) {
  float lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t k = 0; k < kLanes; ++k) lanes[k] += (x[i + k] - mean) * (x[i + k] - mean);
  }
  float sum = 0;
  for (; i < n; ++i) sum += (x[i] - mean) * (x[i] - mean);
  for (const float l : lanes) sum += l;
  return sum;
}

/// Reads tensors and checks their shapes.
class Reader {
 public:
  explicit Reader(const GgufFile& file) : file_(file) {}
  Result<std::vector<float>> read(const std::string& name, std::size_t elements) const {
    const GgufTensor* tensor = file_.tensor(name);
    if (tensor == nullptr)
      return Error{ErrorCode::kCorruptData, fmt::format("{}: tensor '{}' is missing", file_.path().string(), name),
                   "use another file of this model"};
    if (tensor->elements != elements) {
      return Error{ErrorCode::kCorruptData,
                   fmt::format("{}: tensor '{}' has {} values, expected {}", file_.path().string(), name,
                               tensor->elements, elements),
                   "use another file of this model"};
    }
    return file_.tensor_f32(name);
  }

 private:
  const GgufFile& file_;
};

}  // namespace

bool BertEncoder::supports(const GgufFile& file) {
  const auto architecture = file.architecture();
  if (!architecture.has_value() || *architecture != "bert" || file.tensor("blk.0.attn_q.weight") == nullptr ||
      file.tensor("token_types.weight") == nullptr || file.tensor("blk.0.ffn_gate.weight") != nullptr) {
    return false;
  }
  return std::all_of(file.tensors().begin(), file.tensors().end(),
                     [](const GgufTensor& t) { return can_be_f32(t.type); });
}

Result<BertEncoder> BertEncoder::load(const GgufFile& file, const std::filesystem::path& bottlenecks) {
  BertEncoder e;
  TAILOR_TRY(const std::int64_t width, file.integer("bert.embedding_length"));
  TAILOR_TRY(const std::int64_t hidden, file.integer("bert.feed_forward_length"));
  TAILOR_TRY(const std::int64_t layers, file.integer("bert.block_count"));
  TAILOR_TRY(const std::int64_t heads, file.integer("bert.attention.head_count"));
  TAILOR_TRY(const double epsilon, file.number("bert.attention.layer_norm_epsilon"));
  constexpr std::int64_t kMost = 1 << 20;
  if (width < 1 || width > kMost || hidden < 1 || hidden > kMost || layers < 1 || layers > 512 || heads < 1 ||
      width % heads != 0) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: a width of {} with {} heads, {} layers and an inner width of {} is no BERT",
                             file.path().string(), width, heads, layers, hidden),
                 ""};
  }
  e.width_ = static_cast<std::size_t>(width);
  e.heads_ = static_cast<std::size_t>(heads);
  e.epsilon_ = static_cast<float>(epsilon);
  const std::size_t w = e.width_, h = static_cast<std::size_t>(hidden);
  const Reader reader(file);
  const auto rows_of = [&](const char* name) {
    const GgufTensor* tensor = file.tensor(name);
    return tensor != nullptr && tensor->shape.size() == 2 ? static_cast<std::size_t>(tensor->shape[1]) : 0;
  };
  TAILOR_TRY(e.tokens_, reader.read("token_embd.weight", rows_of("token_embd.weight") * w));
  TAILOR_TRY(e.positions_, reader.read("position_embd.weight", rows_of("position_embd.weight") * w));
  TAILOR_TRY(const std::vector<float> types, reader.read("token_types.weight", rows_of("token_types.weight") * w));
  if (e.tokens_.empty() || e.positions_.empty() || types.empty()) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: an embedding table is empty", file.path().string()),
                 "use another file of this model"};
  }
  for (std::size_t i = 0; i < e.positions_.size(); ++i) e.positions_[i] += types[i % w];
  if (types.size() >= 2 * w) {
    e.second_type_.resize(w);
    for (std::size_t i = 0; i < w; ++i) e.second_type_[i] = types[w + i] - types[i];
  }

  const auto norm = [&](const std::string& name) -> Result<Norm> {
    Norm n;
    TAILOR_TRY(n.scale, reader.read(name + ".weight", w));
    TAILOR_TRY(n.shift, reader.read(name + ".bias", w));
    return n;
  };
  const auto linear = [&](const std::string& name, std::size_t in, std::size_t out) -> Result<PackedLinear> {
    TAILOR_TRY(const std::vector<float> weight, reader.read(name + ".weight", in * out));
    std::vector<float> bias;
    if (file.tensor(name + ".bias") != nullptr) {
      TAILOR_TRY(bias, reader.read(name + ".bias", out));
    }
    return PackedLinear(weight, bias, in, out);
  };
  TAILOR_TRY(e.embedding_norm_, norm("token_embd_norm"));
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::string block = fmt::format("blk.{}.", i);
    Layer layer;
    std::vector<float> weight, bias;
    for (const char* part : {"attn_q", "attn_k", "attn_v"}) {
      TAILOR_TRY(const std::vector<float> own, reader.read(block + part + ".weight", w * w));
      weight.insert(weight.end(), own.begin(), own.end());
      std::vector<float> own_bias(w, 0.0f);
      if (file.tensor(block + part + ".bias") != nullptr) {
        TAILOR_TRY(own_bias, reader.read(block + part + ".bias", w));
      }
      bias.insert(bias.end(), own_bias.begin(), own_bias.end());
    }
    layer.queries_keys_values = PackedLinear(weight, bias, w, 3 * w);
    TAILOR_TRY(layer.attention_out, linear(block + "attn_output", w, w));
    TAILOR_TRY(layer.up, linear(block + "ffn_up", w, h));
    TAILOR_TRY(layer.down, linear(block + "ffn_down", h, w));
    TAILOR_TRY(layer.attention_norm, norm(block + "attn_output_norm"));
    TAILOR_TRY(layer.output_norm, norm(block + "layer_output_norm"));
    e.layers_.push_back(std::move(layer));
  }
  if (!bottlenecks.empty()) TAILOR_CHECK(e.load_bottlenecks(bottlenecks));
  return e;
}

Status BertEncoder::load_bottlenecks(const std::filesystem::path& path) {
  TAILOR_TRY(const SafetensorsFile file, SafetensorsFile::open(path));
  const auto bad = [&](const std::string& what) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: {}", path.string(), what), "make the package again"};
  };
  const auto& metadata = file.metadata();
  const auto text = [&](const char* key) {
    const auto at = metadata.find(key);
    return at == metadata.end() ? std::string() : at->second;
  };
  if (text("format") != kBottleneckFormat || text("version") != "1")
    return bad("not a file of bottleneck adapters, version 1");
  const std::string place = text("place");
  if (place != kPlaceHoulsby && place != kPlacePfeiffer && place != kPlaceParallel)
    return bad(fmt::format("the place of the adapters is \"{}\", expected {}, {} or {}", place, kPlaceHoulsby,
                           kPlacePfeiffer, kPlaceParallel));
  adapter_gelu_ = place == kPlaceHoulsby;
  adapter_parallel_ = place == kPlaceParallel;
  adapter_scale_ = std::strtof(text("scale").c_str(), nullptr);
  if (!(adapter_scale_ > 0)) return bad("the scale is not a positive number");
  const auto floats = [&](const std::string& name, std::vector<std::int64_t> shape) -> Result<std::vector<float>> {
    TAILOR_TRY(const SafeTensor tensor, file.get(name, "F32", shape.size()));
    if (tensor.shape != shape) return bad(name + " has another shape than this encoder needs");
    std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  };
  const auto adapter = [&](const std::string& name) -> Result<Bottleneck> {
    TAILOR_TRY(const SafeTensor bias, file.get(name + ".down.bias", "F32", 1));
    const std::int64_t size = bias.shape[0], width = static_cast<std::int64_t>(width_);
    TAILOR_TRY(const auto down, floats(name + ".down.weight", {size, width}));
    TAILOR_TRY(const auto down_bias, floats(name + ".down.bias", {size}));
    TAILOR_TRY(const auto up, floats(name + ".up.weight", {width, size}));
    TAILOR_TRY(const auto up_bias, floats(name + ".up.bias", {width}));
    const auto n = static_cast<std::size_t>(size);
    return Bottleneck{PackedLinear(down, down_bias, width_, n), PackedLinear(up, up_bias, n, width_)};
  };
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const std::string block = fmt::format("blk.{}.", i);
    if (place == kPlaceHoulsby) {
      TAILOR_TRY(layers_[i].after_attention, adapter(block + "adapter_attn"));
    }
    TAILOR_TRY(layers_[i].feed_forward_adapter, adapter(block + "adapter_ffn"));
  }
  return {};
}

void BertEncoder::add_bottleneck(const Bottleneck& adapter, const float* x, float* states, std::size_t rows,
                                 Scratch& s) const {
  s.narrow.resize(rows * adapter.down.out());
  s.added.resize(rows * width_);
  adapter.down.forward(x, rows, s.narrow.data());
  for (float& v : s.narrow) v = adapter_gelu_ ? gelu(v) : std::max(v, 0.0f);
  adapter.up.forward(s.narrow.data(), rows, s.added.data());
  for (std::size_t i = 0; i < rows * width_; ++i) states[i] += adapter_scale_ * s.added[i];
}

/// states = LayerNorm(states + residual); `residual` may be null.
void BertEncoder::normalise(const Norm& norm, const float* residual, float* states, std::size_t rows) const {
  const float n = static_cast<float>(width_);
  for (std::size_t r = 0; r < rows; ++r) {
    float* x = states + r * width_;
    if (residual != nullptr) {
      for (std::size_t i = 0; i < width_; ++i) x[i] += residual[r * width_ + i];
    }
    const float mean = sum_of(x, width_) / n;
    const float scale = 1.0f / std::sqrt(square_distance(x, mean, width_) / n + epsilon_);
    for (std::size_t i = 0; i < width_; ++i) x[i] = (x[i] - mean) * scale * norm.scale[i] + norm.shift[i];
  }
}

void BertEncoder::attend(std::span<const std::span<const std::int32_t>> texts, Scratch& s) const {
  const std::size_t size = width_ / heads_, stride = 3 * width_;
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  std::size_t start = 0;
  for (const std::span<const std::int32_t> text : texts) {
    const std::size_t n = text.size();
    s.keys.resize(size * n);
    s.scores.resize(n);
    for (std::size_t head = 0; head < heads_; ++head) {
      const float* base = s.queries_keys_values.data() + start * stride + head * size;
      for (std::size_t j = 0; j < n; ++j) {  // keys by column: scores of all tokens at once
        for (std::size_t d = 0; d < size; ++d) s.keys[d * n + j] = base[j * stride + width_ + d];
      }
      for (std::size_t i = 0; i < n; ++i) {
        const float* query = base + i * stride;
        float* scores = s.scores.data();
        std::fill_n(scores, n, 0.0f);
        for (std::size_t d = 0; d < size; ++d) {
          const float q = query[d] * scale;
          const float* keys = s.keys.data() + d * n;
          for (std::size_t j = 0; j < n; ++j) scores[j] += q * keys[j];
        }
        const float highest = *std::max_element(scores, scores + n);
        for (std::size_t j = 0; j < n; ++j) scores[j] = exp_nonpositive(scores[j] - highest);
        const float normaliser = 1.0f / sum_of(scores, n);
        float* out = s.attended.data() + (start + i) * width_ + head * size;
        std::fill_n(out, size, 0.0f);
        for (std::size_t j = 0; j < n; ++j) {
          const float p = scores[j] * normaliser;
          const float* value = base + j * stride + 2 * width_;
          for (std::size_t d = 0; d < size; ++d) out[d] += p * value[d];
        }
      }
    }
    start += n;
  }
}

std::span<const float> BertEncoder::hidden_states(std::span<const std::span<const std::int32_t>> texts, Scratch& s,
                                                  std::int32_t separator) const {
  std::size_t rows = 0;
  for (const std::span<const std::int32_t> text : texts) rows += text.size();
  s.states.resize(rows * width_);
  s.other.resize(rows * width_);
  s.attended.resize(rows * width_);
  s.queries_keys_values.resize(rows * 3 * width_);
  std::size_t row = 0;
  for (const std::span<const std::int32_t> text : texts) {
    bool second = false;
    for (std::size_t p = 0; p < text.size(); ++p, ++row) {
      const float* token = tokens_.data() + static_cast<std::size_t>(text[p]) * width_;
      const float* position = positions_.data() + p * width_;
      for (std::size_t i = 0; i < width_; ++i) s.states[row * width_ + i] = token[i] + position[i];
      if (second && !second_type_.empty()) {
        for (std::size_t i = 0; i < width_; ++i) s.states[row * width_ + i] += second_type_[i];
      }
      second = second || (separator >= 0 && text[p] == separator);
    }
  }
  normalise(embedding_norm_, nullptr, s.states.data(), rows);
  for (const Layer& layer : layers_) {
    layer.queries_keys_values.forward(s.states.data(), rows, s.queries_keys_values.data());
    attend(texts, s);
    layer.attention_out.forward(s.attended.data(), rows, s.other.data());
    if (layer.after_attention) add_bottleneck(*layer.after_attention, s.other.data(), s.other.data(), rows, s);
    normalise(layer.attention_norm, s.states.data(), s.other.data(), rows);
    s.wide.resize(rows * layer.up.out());
    layer.up.forward(s.other.data(), rows, s.wide.data());
    for (float& v : s.wide) v = gelu(v);
    layer.down.forward(s.wide.data(), rows, s.states.data());
    if (layer.feed_forward_adapter) {
      const float* x = adapter_parallel_ ? s.other.data() : s.states.data();
      add_bottleneck(*layer.feed_forward_adapter, x, s.states.data(), rows, s);
    }
    normalise(layer.output_norm, s.other.data(), s.states.data(), rows);
  }
  return {s.states.data(), rows * width_};
}

}  // namespace tailor
