#include "tune/soft_prompt.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <cmath>

#include "core/json.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "core/soft_prompt_file.h"

namespace tailor::tune::decoder {
namespace {

constexpr std::uint64_t kStream = 9000;

/// Uniform in +-1 / sqrt(in), as torch.nn.Linear and torch.nn.LSTM begin.
at::Tensor uniform(std::vector<std::int64_t> shape, std::int64_t in, Rng& rng) {
  at::Tensor t = at::empty(shape, at::kFloat);
  const double bound = 1.0 / std::sqrt(static_cast<double>(in));
  for (float *p = t.data_ptr<float>(), *end = p + t.numel(); p != end; ++p)
    *p = static_cast<float>((2 * rng.uniform() - 1) * bound);
  return t;
}

at::Tensor normal(std::vector<std::int64_t> shape, double deviation, Rng& rng) {
  at::Tensor t = at::empty(shape, at::kFloat);
  for (float *p = t.data_ptr<float>(), *end = p + t.numel(); p != end; ++p)
    *p = static_cast<float>(deviation * rng.normal());
  return t;
}

/// Of no token, but as large as a token's.
at::Tensor random_like(const at::Tensor& x, Rng& rng) {
  return normal(x.sizes().vec(), at::sqrt(at::mean(at::square(x))).item<double>(), rng);
}

constexpr double kNetworkRate = 0.1;  // of the learning rate; P-tuning's network, which is all it trains, has the same

}  // namespace

SoftPrompt::SoftPrompt(const DecoderConfig& model, SoftPromptKind kind, const SoftPromptSettings& settings,
                       std::uint64_t seed, Start start, ParameterSet& parameters)
    : model_(model),
      kind_(kind),
      settings_(settings),
      length_(settings.tokens),
      kv_width_(model.kv_heads * model.head_dim) {
  Rng rng(seed, kStream);
  const std::int64_t d = model.hidden, h = settings.hidden > 0 ? settings.hidden : d;
  const auto linear = [&](const std::string& name, std::int64_t out, std::int64_t in) {
    parameters.add(name + ".weight", uniform({out, in}, in, rng));
    parameters.add(name + ".bias", uniform({out}, in, rng), {.decay = false});
  };
  if (settings.init == SoftPromptInit::kRandom && settings.start.empty()) {
    if (start.embeddings.defined()) start.embeddings = random_like(start.embeddings, rng);
    for (at::Tensor& layer : start.keys_values) layer = random_like(layer, rng);
  }
  const auto network = [&](const std::string& name, const at::Tensor& weight, const at::Tensor& bias) {
    parameters.add(name + ".weight", weight, {.rate_scale = kNetworkRate});
    parameters.add(name + ".bias", bias, {.decay = false, .rate_scale = kNetworkRate});
  };
  switch (kind) {
    case SoftPromptKind::kPrompt:
      parameters.add("prompt.embeddings", start.embeddings);
      if (!settings.reparameterise) break;
      for (const auto& [name, out, in] : {std::tuple{"prompt.mlp.0", h, d}, {"prompt.mlp.1", d, h}}) {
        const at::Tensor weight = uniform({out, in}, in, rng);
        network(name, weight, uniform({out}, in, rng));
      }
      parameters.add("prompt.norm.weight", at::zeros({d}, at::kFloat), {.decay = false});
      parameters.add("prompt.norm.bias", at::zeros({d}, at::kFloat), {.decay = false});
      break;
    case SoftPromptKind::kEncoded:
      parameters.add("prompt.embeddings", start.embeddings);
      if (settings.encoder == SoftPromptEncoder::kLstm) {
        for (int layer = 0; layer < 2; ++layer) {
          const std::int64_t in = layer == 0 ? d : 2 * h;
          for (const char* direction : {"forward", "backward"}) {
            const std::string name = fmt::format("prompt.lstm.{}.{}", layer, direction);
            parameters.add(name + ".input", uniform({4 * h, in}, h, rng));
            parameters.add(name + ".state", uniform({4 * h, h}, h, rng));
            parameters.add(name + ".input_bias", uniform({4 * h}, h, rng), {.decay = false});
            parameters.add(name + ".state_bias", uniform({4 * h}, h, rng), {.decay = false});
          }
        }
        linear("prompt.mlp.0", 2 * h, 2 * h);
        linear("prompt.mlp.1", d, 2 * h);
      } else {
        linear("prompt.mlp.0", h, d);
        linear("prompt.mlp.1", h, h);
        linear("prompt.mlp.2", d, h);
      }
      break;
    case SoftPromptKind::kPrefix:
      if (settings.reparameterise) {
        fixed_start_ = start.keys_values;
        parameters.add("prefix.embeddings", normal({length_, kv_width_}, 1, rng));
        const at::Tensor weight = uniform({h, kv_width_}, kv_width_, rng);
        network("prefix.mlp.0", weight, uniform({h}, kv_width_, rng));
        for (std::int64_t layer = 0; layer < model.layers; ++layer) {
          network(fmt::format("prefix.mlp.1.{}", layer), at::zeros({2 * kv_width_, h}, at::kFloat),
                  at::zeros({2 * kv_width_}, at::kFloat));
        }
        break;
      }
      for (std::int64_t layer = 0; layer < model.layers; ++layer)
        parameters.add(fmt::format("prefix.{}", layer), start.keys_values[static_cast<std::size_t>(layer)],
                       {.decay = false});
      break;
  }
}

at::Tensor SoftPrompt::linear(const at::Tensor& x, const std::string& name) const {
  return at::linear(x, at(name + ".weight"), at(name + ".bias"));
}

at::Tensor SoftPrompt::embeddings() const {
  const at::Tensor e = at("prompt.embeddings");
  const auto mlp = [&](const at::Tensor& x, int part) { return linear(x, fmt::format("prompt.mlp.{}", part)); };
  if (kind_ == SoftPromptKind::kPrompt) {
    if (!settings_.reparameterise) return e;
    return e + at::layer_norm(mlp(at::relu(mlp(e, 0)), 1), {model_.hidden}, at("prompt.norm.weight"),
                              at("prompt.norm.bias"));
  }
  if (settings_.encoder == SoftPromptEncoder::kMlp) return mlp(at::relu(mlp(at::relu(mlp(e, 0)), 1)), 2);
  const std::int64_t h = settings_.hidden > 0 ? settings_.hidden : model_.hidden;
  std::vector<at::Tensor> weights;
  for (int layer = 0; layer < 2; ++layer) {
    for (const char* direction : {"forward", "backward"}) {
      for (const char* part : {"input", "state", "input_bias", "state_bias"})
        weights.push_back(at(fmt::format("prompt.lstm.{}.{}.{}", layer, direction, part)));
    }
  }
  const at::Tensor zero = at::zeros({4, 1, h}, e.options());
  const at::Tensor states = std::get<0>(at::lstm(e.unsqueeze(0), {zero, zero}, weights, /*has_biases=*/true,
                                                 /*num_layers=*/2, /*dropout=*/0.0, /*train=*/true,
                                                 /*bidirectional=*/true, /*batch_first=*/true))
                                .squeeze(0);
  return mlp(at::relu(mlp(states, 0)), 1);
}

at::Tensor SoftPrompt::keys_values(std::int64_t layer) const {
  if (settings_.reparameterise) {
    const at::Tensor inner = at::tanh(linear(at("prefix.embeddings"), "prefix.mlp.0"));
    return fixed_start_[static_cast<std::size_t>(layer)] + linear(inner, fmt::format("prefix.mlp.1.{}", layer));
  }
  return at(fmt::format("prefix.{}", layer));
}

Result<std::vector<std::string>> SoftPrompt::save(const std::filesystem::path& dir,
                                                  const std::string& base_name) const {
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> alive;
  std::vector<SafeTensor> tensors;
  const auto add = [&](std::vector<SafeTensor>& to, const std::string& name, const at::Tensor& value) {
    alive.push_back(value.cpu().contiguous());
    const at::Tensor& kept = alive.back();
    to.push_back(
        safe_tensor<float>(name, "F32", kept.sizes().vec(),
                           std::span<const float>(kept.data_ptr<float>(), static_cast<std::size_t>(kept.numel()))));
  };
  if (in_every_layer()) {
    for (std::int64_t layer = 0; layer < model_.layers; ++layer) {
      const at::Tensor kv = keys_values(layer);
      add(tensors, fmt::format("blk.{}.keys", layer), kv.narrow(1, 0, kv_width_));
      add(tensors, fmt::format("blk.{}.values", layer), kv.narrow(1, kv_width_, kv_width_));
    }
  } else {
    add(tensors, kSoftPromptEmbeddings, embeddings());
  }
  TAILOR_CHECK(write_safetensors(dir / kSoftPromptFile, tensors, {{"format", kSoftPromptFormat}, {"version", "1"}}));
  std::vector<std::string> files{kSoftPromptFile};
  if (in_every_layer()) return files;
  // PEFT keeps the vectors themselves, whatever made them.
  std::vector<SafeTensor> peft;
  add(peft, "prompt_embeddings", embeddings());
  TAILOR_CHECK(write_safetensors(dir / "adapter_model.safetensors", peft, {{"format", "pt"}}));
  const Json config{{"peft_type", "PROMPT_TUNING"},         {"task_type", "CAUSAL_LM"},
                    {"base_model_name_or_path", base_name}, {"num_virtual_tokens", length_},
                    {"token_dim", model_.hidden},           {"num_transformer_submodules", 1},
                    {"num_attention_heads", model_.heads},  {"num_layers", model_.layers},
                    {"prompt_tuning_init", "RANDOM"},       {"prompt_tuning_init_text", nullptr},
                    {"tokenizer_name_or_path", nullptr},    {"inference_mode", true}};
  TAILOR_CHECK(write_json_atomic(dir / "adapter_config.json", config));
  files.insert(files.end(), {"adapter_config.json", "adapter_model.safetensors"});
  return files;
}

}  // namespace tailor::tune::decoder
