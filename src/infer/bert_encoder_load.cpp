#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/bottleneck_file.h"
#include "core/safetensors.h"
#include "infer/bert_encoder.h"
#include "model/gguf_file.h"

namespace tailor {
namespace {

constexpr const char* kModern = "modern-bert";

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

/// Windows and rotary positions, with llama.cpp's own numbers where the file does not say.
Result<ModernBertLayers> modern_layers_of(const GgufFile& file) {
  const auto number = [&](const char* key, double otherwise) {
    const GgufValue* value = file.find(key);
    return value == nullptr ? otherwise : value->as_number().value_or(0);
  };
  ModernBertLayers layers;
  layers.window = static_cast<std::int64_t>(number("modern-bert.attention.sliding_window", 0));
  layers.global_every =
      layers.window < 1 ? 1 : static_cast<std::int64_t>(number("modern-bert.attention.sliding_window_pattern", 3));
  layers.global_base = number("modern-bert.rope.freq_base", 10'000);
  layers.local_base = number("modern-bert.rope.freq_base_swa", 10'000);
  if (layers.global_every < 1 || layers.global_base < 1 || layers.local_base < 1) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: windows of attention or rotary positions make no sense", file.path().string()),
                 "use another file of this model"};
  }
  return layers;
}

}  // namespace

bool BertEncoder::supports(const GgufFile& file) {
  const auto architecture = file.architecture();
  if (!architecture.has_value()) return false;
  const bool modern = *architecture == kModern;
  const GgufValue* activation = file.find("modern-bert.hidden_activation");
  const bool known = modern ? file.tensor("blk.0.attn_qkv.weight") != nullptr &&
                                  (activation == nullptr || activation->as_string() == "gelu")
                            : *architecture == "bert" && file.tensor("blk.0.attn_q.weight") != nullptr &&
                                  file.tensor("token_types.weight") != nullptr &&
                                  file.tensor("blk.0.ffn_gate.weight") == nullptr;
  return known && std::all_of(file.tensors().begin(), file.tensors().end(), [&](const GgufTensor& t) {
           return can_be_f32(t.type) && !(modern && t.name.ends_with(".bias"));
         });
}

Result<BertEncoder> BertEncoder::load(const GgufFile& file, const std::filesystem::path& bottlenecks) {
  BertEncoder e;
  TAILOR_TRY(const std::string architecture, file.architecture());
  const auto key = [&](const char* name) { return architecture + "." + name; };
  TAILOR_TRY(const std::int64_t width, file.integer(key("embedding_length")));
  TAILOR_TRY(const std::int64_t hidden, file.integer(key("feed_forward_length")));
  TAILOR_TRY(const std::int64_t layers, file.integer(key("block_count")));
  TAILOR_TRY(const std::int64_t heads, file.integer(key("attention.head_count")));
  TAILOR_TRY(const double epsilon, file.number(key("attention.layer_norm_epsilon")));
  constexpr std::int64_t kMost = 1 << 20;
  if (width < 1 || width > kMost || hidden < 1 || hidden > kMost || layers < 1 || layers > 512 || heads < 1 ||
      width % heads != 0 || (architecture == kModern && width / heads % 2 != 0)) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: a width of {} with {} heads, {} layers and an inner width of {} is no BERT",
                             file.path().string(), width, heads, layers, hidden),
                 ""};
  }
  e.width_ = static_cast<std::size_t>(width);
  e.heads_ = static_cast<std::size_t>(heads);
  e.epsilon_ = static_cast<float>(epsilon);
  const auto n_layers = static_cast<std::size_t>(layers), inner = static_cast<std::size_t>(hidden);
  if (architecture == kModern) {
    TAILOR_TRY(const std::int64_t context, file.integer(key("context_length")));
    e.context_ = static_cast<std::size_t>(std::max<std::int64_t>(context, 0));
    TAILOR_TRY(e.modern_, modern_layers_of(file));
  }
  TAILOR_CHECK(e.load_tables(file));
  if (e.modern_) {
    TAILOR_CHECK(e.load_modern_layers(file, n_layers, inner));
  } else {
    TAILOR_CHECK(e.load_bert_layers(file, n_layers, inner));
  }
  if (!bottlenecks.empty()) TAILOR_CHECK(e.load_bottlenecks(bottlenecks));
  return e;
}

Status BertEncoder::load_tables(const GgufFile& file) {
  const std::size_t w = width_;
  const Reader reader(file);
  const auto rows_of = [&](const char* name) {
    const GgufTensor* tensor = file.tensor(name);
    return tensor != nullptr && tensor->shape.size() == 2 ? static_cast<std::size_t>(tensor->shape[1]) : 0;
  };
  const Error empty{ErrorCode::kCorruptData, fmt::format("{}: an embedding table is empty", file.path().string()),
                    "use another file of this model"};
  TAILOR_TRY(tokens_, reader.read("token_embd.weight", rows_of("token_embd.weight") * w));
  if (tokens_.empty()) return empty;
  TAILOR_TRY(embedding_norm_.scale, reader.read("token_embd_norm.weight", w));
  if (modern_) return {};
  TAILOR_TRY(embedding_norm_.shift, reader.read("token_embd_norm.bias", w));
  TAILOR_TRY(positions_, reader.read("position_embd.weight", rows_of("position_embd.weight") * w));
  TAILOR_TRY(const std::vector<float> types, reader.read("token_types.weight", rows_of("token_types.weight") * w));
  if (positions_.empty() || types.empty()) return empty;
  for (std::size_t i = 0; i < positions_.size(); ++i) positions_[i] += types[i % w];
  if (types.size() >= 2 * w) {
    second_type_.resize(w);
    for (std::size_t i = 0; i < w; ++i) second_type_[i] = types[w + i] - types[i];
  }
  return {};
}

Status BertEncoder::load_bert_layers(const GgufFile& file, std::size_t layers, std::size_t h) {
  const std::size_t w = width_;
  const Reader reader(file);
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
  for (std::size_t i = 0; i < layers; ++i) {
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
    layers_.push_back(std::move(layer));
  }
  return {};
}

Status BertEncoder::load_modern_layers(const GgufFile& file, std::size_t layers, std::size_t h) {
  const std::size_t w = width_;
  const Reader reader(file);
  const auto linear = [&](const std::string& name, std::size_t in, std::size_t out) -> Result<PackedLinear> {
    TAILOR_TRY(const std::vector<float> weight, reader.read(name + ".weight", in * out));
    return PackedLinear(weight, {}, in, out);
  };
  for (std::size_t i = 0; i < layers; ++i) {
    const std::string block = fmt::format("blk.{}.", i);
    Layer layer;
    if (i > 0) {
      TAILOR_TRY(layer.attention_norm.scale, reader.read(block + "attn_norm.weight", w));
    }
    TAILOR_TRY(layer.queries_keys_values, linear(block + "attn_qkv", w, 3 * w));
    TAILOR_TRY(layer.attention_out, linear(block + "attn_output", w, w));
    TAILOR_TRY(layer.output_norm.scale, reader.read(block + "ffn_norm.weight", w));
    TAILOR_TRY(layer.up, linear(block + "ffn_up", w, 2 * h));
    TAILOR_TRY(layer.down, linear(block + "ffn_down", h, w));
    layers_.push_back(std::move(layer));
  }
  TAILOR_TRY(final_norm_.scale, reader.read("output_norm.weight", w));
  return {};
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

}  // namespace tailor
