// Logits and gradients of every family against transformers: tests/golden/decoder_family_golden.py.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "core/rng.h"
#include "core/safetensors.h"
#include "tune/decoder.h"
#include "tune/decoder_adapters.h"
#include "tune/decoder_export.h"
#include "tune/decoder_family_model.h"
#include "tune/kernels.h"

namespace tailor::tune::decoder {
namespace {

std::vector<float> as_hugging_face(const DecoderTensor& tensor, const at::Tensor& values) {
  const at::Tensor v = values.contiguous();
  const std::string bytes = bytes_to_hugging_face(
      tensor, {reinterpret_cast<const char*>(v.data_ptr<float>()), static_cast<std::size_t>(v.numel()) * sizeof(float)},
      sizeof(float));
  std::vector<float> out(static_cast<std::size_t>(v.numel()));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

class DecoderFamilies : public ::testing::TestWithParam<const char*> {};

void compare_with_transformers(const std::string& family) {
  const TinyFamily t = tiny_family(family);
  const TemporaryDirectory dir;
  write_gguf(t.model, dir.path() / "m.gguf");
  const BaseWeights base = BaseWeights::open(dir.path() / "m.gguf").value();
  ParameterSet parameters;
  const auto weights = DecoderWeights::open(
                           base, WeightStorage::kFloat, [](std::string_view) { return true; }, &parameters)
                           .value();
  parameters.flatten();
  weights->bind(parameters);
  Decoder decoder(*weights, nullptr);

  const auto tokens = t.golden["tokens"].get<std::vector<std::int32_t>>();
  const SequenceView view{tokens, {}};
  const auto tree = std::make_shared<PackedTree>(pack_tree({&view, 1}, Sharing::kTree));
  const at::Tensor logits = decoder.logits(tree);
  ASSERT_EQ(logits.size(0), static_cast<std::int64_t>(tokens.size()) - 1);
  double worst = 0;
  for (std::int64_t i = 0; i < logits.numel(); ++i) {
    const double expected = t.golden["logits"][static_cast<std::size_t>(i)].get<double>();
    worst = std::max(worst, std::abs(static_cast<double>(logits.data_ptr<float>()[i]) - expected));
  }
  EXPECT_LT(worst, 1e-4) << "logits";

  // A text that grows, three tokens at once and then one by one.
  Decoder::Seen seen_text;
  at::Tensor last = decoder.next_logits(seen_text, std::span(tokens).first(3));
  for (std::size_t i = 3; i < tokens.size(); ++i) {
    EXPECT_LT(at::max(at::abs(last - logits[static_cast<std::int64_t>(i) - 1])).item<float>(), 1e-4) << i;
    last = decoder.next_logits(seen_text, {&tokens[i], 1});
  }

  const std::vector<float> even(tree->targets.size(), 1.0f / static_cast<float>(tree->targets.size()));
  const std::vector<float> losses = decoder.losses_and_gradients(tree, even, nullptr);
  double loss = 0;
  for (const float l : losses) loss += l / static_cast<double>(losses.size());
  EXPECT_NEAR(loss, t.golden["loss"].get<double>(), 1e-5);

  if (!t.golden.contains("gradients")) return;
  std::size_t seen = 0;
  for (const DecoderTensor& tensor : t.tensors) {
    const at::Tensor grad = parameters.at(tensor.gguf).grad;
    const double norm = t.golden["gradient_norms"][tensor.hugging_face].get<double>();
    EXPECT_NEAR(at::norm(grad.to(at::kDouble)).item<double>(), norm, 1e-4 * (1 + norm)) << tensor.hugging_face;
    if (!t.golden["gradients"].contains(tensor.hugging_face)) continue;
    ++seen;
    const auto expected = t.golden["gradients"][tensor.hugging_face].get<std::vector<double>>();
    std::vector<float> values = as_hugging_face(tensor, grad);
    if (tensor.role == TensorRole::kEmbedding || tensor.role == TensorRole::kOutput) {
      std::vector<float> rows;
      for (const auto& row : t.golden["embedding_rows"]) {
        const auto from = values.begin() + row.get<std::int64_t>() * tensor.shape[1];
        rows.insert(rows.end(), from, from + tensor.shape[1]);
      }
      values = rows;
    }
    ASSERT_LE(expected.size(), values.size()) << tensor.hugging_face;
    double off = 0;
    for (std::size_t i = 0; i < expected.size(); ++i)
      off = std::max(off, std::abs(static_cast<double>(values[i]) - expected[i]));
    EXPECT_LT(off, 1e-4) << tensor.hugging_face;
  }
  EXPECT_EQ(seen, t.golden["gradients"].size());
}

TEST_P(DecoderFamilies, LogitsAndGradientsEqualTransformers) {
  compare_with_transformers(GetParam());
}
TEST_P(DecoderFamilies, LogitsAndGradientsEqualTransformersInPlainAten) {
  const KernelsGuard portable(Kernels::kPortable);
  compare_with_transformers(GetParam());
}

TEST(DecoderFamily, LongFactorsEndTheContextWhereTheyBegin) {
  OpenModel open(tiny_family("llama_longrope").model);
  EXPECT_EQ(open->config().context, 256);
  EXPECT_EQ(OpenModel(tiny_family("llama_yarn").model)->config().context, 64);
  TestModel wrong = tiny_family("llama_yarn").model;
  wrong.texts["rope.scaling.type"] = "dynamic";
  const TemporaryDirectory dir;
  write_gguf(wrong, dir.path() / "m.gguf");
  const BaseWeights base = BaseWeights::open(dir.path() / "m.gguf").value();
  const auto refused = DecoderConfig::read(base);
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("rotary scaling 'dynamic'"), std::string::npos) << refused.error().message;
}

/// The model with its tensors replaced by those of the file.
TestModel with_weights(TestModel model, const std::filesystem::path& file) {
  const SafetensorsFile changed = SafetensorsFile::open(file).value();
  EXPECT_FALSE(changed.tensors().empty());
  for (const SafeTensor& tensor : changed.tensors()) {
    const auto found = std::find_if(model.tensors.begin(), model.tensors.end(),
                                    [&](const TestTensor& known) { return known.name == tensor.name; });
    EXPECT_NE(found, model.tensors.end()) << tensor.name;
    if (found == model.tensors.end()) continue;
    EXPECT_EQ(found->values.size() * sizeof(float), tensor.bytes.size()) << tensor.name;
    std::memcpy(found->values.data(), tensor.bytes.data(), tensor.bytes.size());
  }
  return model;
}

TEST_P(DecoderFamilies, MergedIsUnmerged) {
  const TinyFamily t = tiny_family(GetParam());
  const TemporaryDirectory dir;
  const auto tokens = t.golden["tokens"].get<std::vector<std::int32_t>>();
  const SequenceView view{tokens, {}};
  const auto tree = std::make_shared<PackedTree>(pack_tree({&view, 1}, Sharing::kTree));
  OpenModel plain(t.model);
  const at::Tensor untouched = Decoder(*plain, nullptr).logits(tree);
  for (const std::string method : {"lora", "dora", "ia3"}) {
    OpenModel open(t.model);
    ParameterSet parameters;
    std::optional<LoraAdapters> lora;
    DecoderAdapters scales;
    if (method == "ia3") {
      scales.add_scales(open->config(), parameters);
    } else {
      LoraConfig config;
      config.rank = 3;
      config.magnitudes = method == "dora";
      lora = LoraAdapters::attach(*open, config, 7, parameters).value();
    }
    parameters.flatten();
    Rng rng(5);
    float* values = parameters.flat_values().data_ptr<float>();
    for (std::int64_t i = 0; i < parameters.flat_values().numel(); ++i)
      values[i] += static_cast<float>(0.1 * rng.normal());
    Decoder decoder(*open, lora ? &*lora : nullptr);
    if (lora) {
      lora->bind(parameters);
      lora->refresh(*open);
    } else {
      scales.bind(parameters);
      decoder.set_adapters(&scales);
    }
    const at::Tensor expected = decoder.logits(tree);
    EXPECT_GT(at::max(at::abs(expected - untouched)).item<float>(), 1e-2) << method;
    const auto file = dir.path() / (method + ".safetensors");
    write_changed_weights(file, *open, lora ? &*lora : nullptr, parameters, method).value();
    OpenModel merged(with_weights(t.model, file));
    const at::Tensor seen = Decoder(*merged, nullptr).logits(tree);
    EXPECT_LT(at::max(at::abs(seen - expected)).item<float>(), 1e-4) << method;
  }
}

INSTANTIATE_TEST_SUITE_P(All, DecoderFamilies, ::testing::ValuesIn(kTinyFamilies),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace tailor::tune::decoder
