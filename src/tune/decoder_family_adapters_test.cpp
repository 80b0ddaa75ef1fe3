// PEFT's adapters on every family of decoders: read, they give PEFT's logits; written again, they are PEFT's file. So
// what tailor-tune writes loads in PEFT, and what PEFT writes can be gone on with: tests/golden/peft_adapter_golden.py.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/files.h"
#include "core/safetensors.h"
#include "tune/adapter_start.h"
#include "tune/decoder.h"
#include "tune/decoder_export.h"
#include "tune/decoder_family_model.h"

namespace tailor::tune::decoder {
namespace {

class FamilyAdapters : public ::testing::TestWithParam<const char*> {};

TEST_P(FamilyAdapters, AreThoseOfPeftBothWays) {
  const Json golden_file = golden("peft_adapters.json");
  const Json& peft = golden_file.at("cases").at(std::string("all_") + GetParam());
  const TemporaryDirectory dir;
  std::map<std::string, std::vector<float>> values;
  std::vector<SafeTensor> tensors;
  std::uint64_t stream = 0;
  for (const Json& item : peft.at("tensors")) {
    const auto shape = item[1].get<std::vector<std::int64_t>>();
    Rng rng(golden_file.at("seed").get<std::uint64_t>(), stream++);
    std::vector<float>& numbers = values[item[0]];
    for (std::int64_t i = 0; i < shape[0] * shape[1]; ++i)
      numbers.push_back(static_cast<float>(item[2].get<double>() + 0.2 * rng.normal()));
    tensors.push_back(safe_tensor<float>(item[0], "F32", shape, numbers));
  }
  write_safetensors(dir.path() / "adapter_model.safetensors", tensors).value();
  write_json_atomic(dir.path() / "adapter_config.json", peft.at("config")).value();

  const TinyFamily t = tiny_family(GetParam());
  OpenModel model(t.model);
  Job job;
  job.task = Task::kCausalLm;
  job.method = "lora";
  job.adapter = dir.path();
  const AdapterFile file = AdapterFile::open(dir.path()).value();
  take_adapter_settings(file, Json::object(), "job.json", job).value();
  const AdapterStart start = decoder_start(job, model.base(), model->config(), model->config().tied).value();
  LoraConfig config;
  config.rank = job.settings.lora.r;
  config.alpha = job.settings.lora.alpha;
  ParameterSet parameters;
  LoraAdapters adapters = LoraAdapters::attach(*model, config, 0, parameters, &start).value();
  parameters.flatten();
  adapters.bind(parameters);
  Decoder decoder(*model, &adapters);
  const auto tokens = t.golden.at("tokens").get<std::vector<std::int32_t>>();
  const auto expected = peft.at("logits").get<std::vector<double>>();
  const auto vocabulary = static_cast<std::size_t>(model->config().vocab);
  ASSERT_EQ(expected.size(), 2 * vocabulary);
  Decoder::Seen seen;
  decoder.next_logits(seen, std::span(tokens).first(tokens.size() - 2));
  for (std::size_t i = 0; i < 2; ++i) {
    const at::Tensor logits = decoder.next_logits(seen, {&tokens[tokens.size() - 2 + i], 1});
    double worst = 0;
    for (std::size_t v = 0; v < vocabulary; ++v)
      worst =
          std::max(worst, std::abs(static_cast<double>(logits.data_ptr<float>()[v]) - expected[i * vocabulary + v]));
    EXPECT_LT(worst, 1e-4) << "after token " << i;
  }

  const TemporaryDirectory out;
  write_peft_adapter(out.path(), *model, adapters, {}, parameters).value();
  const SafetensorsFile written = SafetensorsFile::open(out.path() / "adapter_model.safetensors").value();
  EXPECT_EQ(written.tensors().size(), values.size());
  for (const SafeTensor& tensor : tensors) {
    const SafeTensor* ours = written.find(tensor.name);
    ASSERT_NE(ours, nullptr) << tensor.name;
    EXPECT_EQ(ours->shape, tensor.shape) << tensor.name;
    EXPECT_EQ(ours->bytes, tensor.bytes) << tensor.name;
  }
  const Json config_written = read_json(out.path() / "adapter_config.json").value();
  for (const char* key : {"peft_type", "r", "lora_alpha", "bias", "task_type"})
    EXPECT_EQ(config_written.at(key), peft.at("config").at(key)) << key;
  EXPECT_EQ(config_written.at("fan_in_fan_out"), peft.at("config").value("fan_in_fan_out", false));
  // PEFT takes a module whose path is a name or ends in one: each that has tensors, and no other.
  for (const Json& path : peft.at("config").at("target_modules")) {
    int named = 0;
    for (const Json& name : config_written.at("target_modules"))
      named += path == name || path.get<std::string>().ends_with("." + name.get<std::string>()) ? 1 : 0;
    EXPECT_EQ(named, 1) << path;
  }
}

INSTANTIATE_TEST_SUITE_P(All, FamilyAdapters, ::testing::ValuesIn(kTinyFamilies),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace tailor::tune::decoder
