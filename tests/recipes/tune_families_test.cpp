/// `tailor tune` on every family of decoders: what the package answers through llama.cpp is what was trained.

#include <fmt/format.h>

#include "model/test_decoder_family.h"
#include "tests/recipes/cli.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

class TuneDecoderFamilies : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
  }
  std::string path(const std::string& name) const { return (dir_.path() / name).string(); }
  TemporaryDirectory dir_;
};

TEST_P(TuneDecoderFamilies, ServedAsTrained) {
  tailor::testing::TinyDecoder(GetParam()).write(path("model"));
  const Outcome imported = run({"models", "import", path("model"), "--out", path("tiny.gguf")});
  ASSERT_EQ(imported.code, 0) << imported.err;
  std::string csv = "prompt,completion\n";
  for (int i = 0; i < 20; ++i) csv += fmt::format("{} and one:, {}\n", i, i + 1);
  write_file_atomic(path("sums.csv"), csv).value();
  for (const char* method : {"full", "lora", "ia3", "prompt-tuning", "prefix-tuning"}) {
    SCOPED_TRACE(method);
    std::vector<std::string> arguments{"tune", path("sums.csv"), "--model", path("tiny.gguf"), "--method", method};
    arguments.insert(arguments.end(), {"--max-steps", "6", "--answers", "1", "--quiet", "--out", path(method)});
    // Nine virtual tokens are more than a window holds, where there is one; the rate moves them far from words.
    if (std::string(method).starts_with("pr"))
      arguments.insert(arguments.end(), {"--virtual-tokens", "9", "--learning-rate", "0.5"});
    else
      arguments.insert(arguments.end(), {"--learning-rate", "0.02"});
    const Outcome r = run(arguments);
    ASSERT_EQ(r.code, 0) << r.err;
    const Json result = read_json(dir_.path() / method / "result.json").value();
    EXPECT_NE(result.at("test").at("loss"), result.at("untouched").at("loss"));
    EXPECT_LT(result.at("served").at("largest_difference").get<double>(), 0.01);  // f16 weights and cache
  }
}

INSTANTIATE_TEST_SUITE_P(All, TuneDecoderFamilies, ::testing::ValuesIn(tailor::testing::tiny_decoders()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace tailor::test
