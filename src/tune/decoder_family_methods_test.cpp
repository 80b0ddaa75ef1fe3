// Every method on every family of decoders: its gradients are those of its loss, by differences of the loss.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "tune/decoder_family_model.h"
#include "tune/job.h"
#include "tune/methods.h"

namespace tailor::tune::decoder {
namespace {

/// "blk.1.attn_q.weight" -> "blk.attn_q.weight": tensors that do the same in every layer.
std::string kind_of(const std::string& name) {
  std::string out;
  for (const char c : name) {
    if (std::isdigit(static_cast<unsigned char>(c)) == 0) out += c;
  }
  return out;
}

/// Three rows with a beginning in common; the last tokens are learnt.
TokenFile some_rows(const std::vector<std::int32_t>& tokens, std::int64_t vocabulary) {
  TokenFile file;
  file.vocab_size = static_cast<std::int32_t>(vocabulary);
  for (std::int32_t r = 0; r < 3; ++r) {
    std::vector<std::int32_t> row(tokens.begin(), tokens.end() - 2 * r);
    row[row.size() - 2] = 3 + r;
    std::vector<std::uint8_t> mask(row.size(), 0);
    std::fill(mask.end() - 3 - r, mask.end(), std::uint8_t{1});
    file.add_row(row, -1, TokenPart::kTrain, r, mask);
  }
  return file;
}

class DecoderFamilyMethods : public ::testing::TestWithParam<const char*> {};

TEST_P(DecoderFamilyMethods, GradientsAreThoseOfTheLoss) {
  const TinyFamily t = tiny_family(GetParam());
  const TemporaryDirectory dir;
  write_gguf(t.model, dir.path() / "m.gguf");
  const BaseWeights base = BaseWeights::open(dir.path() / "m.gguf").value();
  const TokenFile rows = some_rows(t.golden["tokens"].get<std::vector<std::int32_t>>(), t.model.vocab);
  const std::vector<std::int64_t> all = {0, 1, 2};
  std::size_t trained = 0;
  for (const Method& method : methods()) {
    if (method.decoder == nullptr) continue;
    // The same model as lora's: another scale, another rate, another loss.
    if (method.name == "rslora" || method.name == "lora-plus" || method.name == "distill") continue;
    SCOPED_TRACE(method.name);
    Job job;
    job.method = method.name;
    job.task = Task::kCausalLm;
    job.out = dir.path();
    job.seed = 4;
    method.set_defaults(job.settings, job.task);
    job.settings.lora.r = 2;
    job.settings.adapter.size = 4;
    job.settings.soft_prompt.tokens = 3;
    job.settings.soft_prompt.hidden = 6;
    job.settings.upper_layers = 1;
    std::unique_ptr<TrainableModel> model;
    try {
      model = method.decoder({job, base, rows, {}});
    } catch (const Exception& error) {  // RMS norms and linear layers without a bias
      EXPECT_EQ(method.name, "bitfit") << error.what();
      continue;
    }
    ++trained;
    ParameterSet& parameters = model->parameters();
    const std::int64_t n = parameters.flat_values().numel();
    float* values = parameters.flat_values().data_ptr<float>();
    Rng rng(9);
    for (std::int64_t i = 0; i < n; ++i) values[i] += static_cast<float>(0.03 * rng.normal());  // away from zeros
    model->parameters_changed(1);
    parameters.zero_grad();
    const double denominator = model->weight(all);
    model->forward_backward(all, {.denominator = denominator});
    const at::Tensor gradient = parameters.flat_grad().clone(), start = parameters.flat_values().detach().clone();
    const auto loss_at = [&](const at::Tensor& direction, double step) {
      parameters.flat_values().copy_(start + direction * step);
      model->parameters_changed(1);
      parameters.zero_grad();
      return model->forward_backward(all, {.denominator = denominator}).loss_sum / denominator;
    };
    std::map<std::string, at::Tensor> directions;
    for (const Parameter& p : parameters) {
      at::Tensor& direction = directions[kind_of(p.name)];
      if (!direction.defined()) direction = at::zeros_like(start);
      const at::Tensor own = gradient.narrow(0, p.offset, p.value.numel());
      at::Tensor noise = at::empty_like(own);
      for (std::int64_t i = 0; i < noise.numel(); ++i) noise.data_ptr<float>()[i] = static_cast<float>(rng.normal());
      direction.narrow(0, p.offset, p.value.numel())
          .copy_(own / (at::norm(own) + 1e-20) + 0.3 * noise / (at::norm(noise) + 1e-20));
    }
    for (const auto& [kind, direction] : directions) {
      // DoRA takes the length of V as a constant.
      if (method.name == "dora" && !kind.ends_with("lora_magnitude")) continue;
      const double slope = at::dot(gradient, direction).item<double>();
      const double step = 4e-3 / std::max(1.0, std::abs(slope));  // few ReLUs change sides
      const double seen = (loss_at(direction, step) - loss_at(direction, -step)) / (2 * step);
      EXPECT_NEAR(seen, slope, 0.08 * std::abs(slope) + 2e-3) << kind;
    }
  }
  EXPECT_GE(trained, 14U);
}

INSTANTIATE_TEST_SUITE_P(All, DecoderFamilyMethods, ::testing::ValuesIn(kTinyFamilies),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace tailor::tune::decoder
