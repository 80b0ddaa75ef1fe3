#pragma once
/// For tests: trains as a case of tests/golden/data/*_methods.json says, and holds losses, gradient norms, answers and
/// files against it.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/safetensors.h"
#include "core/token_file.h"
#include "tune/job.h"
#include "tune/run_job.h"

namespace tailor::tune::testing {

struct Values {
  std::vector<std::int64_t> shape;
  std::vector<float> numbers;
};
using NamedValues = std::map<std::string, Values>;

/// The tensors whose names begin with `prefix`, without it.
inline NamedValues read_values(const std::filesystem::path& path, const std::string& prefix = "") {
  NamedValues found;
  const SafetensorsFile file = SafetensorsFile::open(path).value();
  for (const SafeTensor& tensor : file.tensors()) {
    if (!tensor.name.starts_with(prefix)) continue;
    EXPECT_EQ(tensor.type, "F32") << tensor.name;
    Values& values = found[tensor.name.substr(prefix.size())];
    values.shape = tensor.shape;
    values.numbers.resize(tensor.bytes.size() / sizeof(float));
    std::memcpy(values.numbers.data(), tensor.bytes.data(), tensor.bytes.size());
  }
  return found;
}

struct MethodRun {
  Json result;
  Json adapter_config;  // null: no directory for PEFT
  std::vector<double> gradient_norms;
  NamedValues trained;               // of all files but the predictions
  std::vector<float> probabilities;  // of the test rows; regression: values
};

/// Writes `rows` into `dir` and trains on them with the settings of `golden`, what it leaves out by the method's
/// defaults. `more`: further keys of the job.
inline MethodRun train_as(const Json& golden, const std::string& method, const char* task, std::uint64_t seed,
                          const std::filesystem::path& base, const TokenFile& rows, const std::filesystem::path& dir,
                          const Json& more = Json::object()) {
  write_token_file(dir / "tokens.safetensors", rows).value();
  Json value = {{"format", "tailor-tune-job"},
                {"version", 1},
                {"task", task},
                {"method", method},
                {"base", base.string()},
                {"tokens", "tokens.safetensors"},
                {"out", "out"},
                {"seed", seed},
                {"threads", 2},
                {"checkpoint_every_seconds", 0},
                {"settings", golden.at("settings")}};
  value.update(more);
  const Job job = parse_job(value, "job.json", dir).value();
  MethodRun run;
  const auto listen = [&](const Json& event) {
    if (event.at("event") == "step") run.gradient_norms.push_back(event.at("gradient_norm").get<double>());
  };
  run.result = run_job(job, listen, CancelToken(), std::chrono::steady_clock::now()).value();
  for (const std::string name : run.result.at("files")) {
    if (name == "test_predictions.safetensors") {
      const SafetensorsFile file = SafetensorsFile::open(job.out / name).value();
      const SafeTensor probabilities = file.find("values") != nullptr   ? file.get("values", "F32", 1).value()
                                       : file.find("scores") != nullptr ? file.get("scores", "F32", 2).value()
                                                                        : file.get("probabilities", "F32", 2).value();
      run.probabilities.resize(probabilities.bytes.size() / sizeof(float));
      std::memcpy(run.probabilities.data(), probabilities.bytes.data(), probabilities.bytes.size());
    } else if (name.ends_with(".safetensors")) {
      run.trained.merge(read_values(job.out / name));
    }
  }
  if (std::filesystem::exists(job.out / "adapter_config.json"))
    run.adapter_config = read_json(job.out / "adapter_config.json").value();
  return run;
}

template <typename Numbers>
void expect_close(const Numbers& seen, const std::vector<double>& expected, double tolerance, const std::string& what) {
  ASSERT_EQ(seen.size(), expected.size()) << what;
  double worst = 0;
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const double difference = std::abs(static_cast<double>(seen[i]) - expected[i]);
    worst = std::max(worst, std::isnan(difference) ? INFINITY : difference);
  }
  EXPECT_LT(worst, tolerance) << what;
  ::testing::Test::RecordProperty(what, fmt::format("{:.1e}", worst));
}

/// Losses, gradient norms (in parts of the largest), answers, and what adapter_config.json says of the tensors.
inline void expect_run(const MethodRun& run, const Json& golden) {
  const auto numbers = [&](const char* key) { return golden.at(key).get<std::vector<double>>(); };
  expect_close(run.result.at("losses").get<std::vector<double>>(), numbers("losses"), 5e-5, "losses");
  const std::vector<double> norms = numbers("gradient_norms");
  expect_close(run.gradient_norms, norms, 1e-4 * std::max(1.0, *std::max_element(norms.begin(), norms.end())),
               "gradient_norms");
  expect_close(run.probabilities, numbers("probabilities"), 1e-4, "probabilities");
  EXPECT_EQ(run.adapter_config.is_null(), !golden.contains("adapter_config"));
  if (run.adapter_config.is_null()) return;
  for (const auto& [key, expected] : golden.at("adapter_config").items())
    EXPECT_EQ(run.adapter_config.at(key), expected) << key;
}

/// The same tensors, no more and no fewer.
inline void expect_trained(const NamedValues& seen, const NamedValues& expected, double tolerance = 3e-5) {
  EXPECT_EQ(seen.size(), expected.size());
  for (const auto& [name, values] : expected) {
    const auto found = seen.find(name);
    ASSERT_NE(found, seen.end()) << name;
    EXPECT_EQ(found->second.shape, values.shape) << name;
    expect_close(found->second.numbers, {values.numbers.begin(), values.numbers.end()}, tolerance, name);
  }
}

}  // namespace tailor::tune::testing
