#include "model/export_hugging_face.h"

#include <gtest/gtest.h>

#include "core/decoder_layout.h"
#include "model/decoder_file.h"
#include "model/gguf_writer.h"
#include "model/import.h"
#include "model/import_decoder_config.h"
#include "model/model_weights.h"
#include "model/test_decoder_family.h"
#include "model/test_encoder_family.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::TinyDecoder;

class ExportHuggingFace : public ::testing::Test {
 protected:
  ExportReport exported(const fs::path& gguf, const ExportOptions& options = {}) {
    fs::remove_all(back_);
    return export_hugging_face(gguf, back_, options).value();
  }
  /// Every tensor of two directories has the same type, shape and bits.
  void expect_same_tensors(const fs::path& a, const fs::path& b, const std::string& what) {
    const ModelWeights first = ModelWeights::open(a).value(), second = ModelWeights::open(b).value();
    EXPECT_EQ(first.tensors().size(), second.tensors().size()) << what;
    for (const SafeTensor* t : first.tensors()) {
      const SafeTensor* other = second.find(t->name);
      ASSERT_NE(other, nullptr) << what << " " << t->name;
      EXPECT_EQ(other->type, t->type) << what << " " << t->name;
      EXPECT_EQ(other->shape, t->shape) << what << " " << t->name;
      EXPECT_TRUE(other->bytes == t->bytes) << what << " " << t->name;
    }
  }
  TemporaryDirectory dir_{"export-hf"};
  fs::path in_ = dir_.path() / "m", out_ = dir_.path() / "m.gguf", back_ = dir_.path() / "back";
};

TEST_F(ExportHuggingFace, DirectoriesComeBackBitByBit) {
  for (const std::string& name : testing::tiny_decoders()) {
    const TinyDecoder model(name);
    const std::pair<const char*, ImportType> cases[] = {{"F32", ImportType::kF32},    {"F16", ImportType::kF16},
                                                        {"BF16", ImportType::kBf16},  {"BF16", ImportType::kF32},
                                                        {"F16", ImportType::kSource}, {"F32", ImportType::kSource}};
    for (const auto& [stored, type] : cases) {
      const std::string what = name + " " + stored + " as " + std::string(name_of(type));
      fs::remove_all(in_);
      model.write(in_, stored);
      import_hugging_face(in_, out_, {.type = type}).value();
      const ExportReport report = exported(out_);
      EXPECT_TRUE(report.notes.empty()) << what;
      expect_same_tensors(in_, back_, what);
      for (const auto& [file, json] : model.files) {
        EXPECT_EQ(read_file(back_ / file).value(), read_file(in_ / file).value()) << what << " " << file;
      }
    }
  }
}

/// A file of llama.cpp's own converter: nothing of ours in it.
void strip(const fs::path& gguf, const fs::path& out) {
  const GgufFile file = GgufFile::open(gguf).value();
  GgufWriter writer;
  for (const auto& [key, value] : file.values()) {
    if (!key.starts_with("tailor.") && key != "tokenizer.huggingface.json") writer.set(key, value);
  }
  for (const GgufTensor& t : file.tensors()) {
    writer.add_raw(t.name, t.type, t.shape, [&t] { return Result(t.bytes); });
  }
  writer.write(out).value();
}

TEST_F(ExportHuggingFace, OtherFilesComeBackAsTheSameFile) {
  const fs::path bare = dir_.path() / "bare.gguf", again = dir_.path() / "again.gguf";
  for (const std::string& name : testing::tiny_decoders()) {
    if (name == "llama_variant") continue;  // its original context is not Llama 3's: see below
    for (const ImportType type : {ImportType::kF32, ImportType::kF16, ImportType::kBf16}) {
      fs::remove_all(in_);
      TinyDecoder(name).write(in_);
      import_hugging_face(in_, out_, {.type = type}).value();
      strip(out_, bare);
      exported(bare);
      import_hugging_face(back_, again, {.type = ImportType::kSource}).value();
      const GgufFile first = GgufFile::open(bare).value(), second = GgufFile::open(again).value();
      EXPECT_EQ(first.tensors().size(), second.tensors().size()) << name;
      for (const GgufTensor& t : first.tensors()) {
        ASSERT_NE(second.tensor(t.name), nullptr) << name << " " << t.name;
        EXPECT_TRUE(second.tensor(t.name)->bytes == t.bytes) << name << " " << t.name;
        EXPECT_EQ(second.tensor(t.name)->type, t.type) << name << " " << t.name;
      }
      for (const auto& [key, value] : first.values()) {
        if (key == "general.name") continue;
        ASSERT_NE(second.find(key), nullptr) << name << " " << key;
        EXPECT_EQ(second.find(key)->encoded(), value.encoded()) << name << " " << key;
      }
    }
  }
}

TEST_F(ExportHuggingFace, Encoders) {
  for (const std::string name : {"distilbert", "roberta", "modernbert"}) {
    testing::TinyEncoder model(name);
    fs::remove_all(in_);
    fs::create_directories(in_);
    model.write(in_);
    import_hugging_face(in_, out_).value();
    EXPECT_TRUE(exported(out_).notes.empty()) << name;
    expect_same_tensors(in_, back_, name);
    for (const auto& [file, json] : model.files) {
      EXPECT_EQ(read_file(back_ / file).value(), read_file(in_ / file).value()) << name << " " << file;
    }
    // Without what we kept it is a BERT, or a ModernBERT that imports as the same file.
    strip(out_, dir_.path() / "bare.gguf");
    const ExportReport report = exported(dir_.path() / "bare.gguf");
    EXPECT_FALSE(report.notes.empty());
    if (name == "modernbert") {
      import_hugging_face(back_, dir_.path() / "again.gguf").value();
      const GgufFile first = GgufFile::open(out_).value(), second = GgufFile::open(dir_.path() / "again.gguf").value();
      for (const auto& [key, value] : first.values()) {
        if (key == "general.name" || key.starts_with("tailor.source") || key == "tokenizer.huggingface.json") continue;
        ASSERT_NE(second.find(key), nullptr) << key;
        EXPECT_EQ(second.find(key)->encoded(), value.encoded()) << key;
      }
      for (const GgufTensor& t : first.tensors()) EXPECT_TRUE(second.tensor(t.name)->bytes == t.bytes) << t.name;
      continue;
    }
    EXPECT_EQ(read_json(back_ / "config.json").value()["model_type"], "bert");
    EXPECT_NE(ModelWeights::open(back_).value().find("encoder.layer.1.attention.self.query.weight"), nullptr);
  }
}

TEST_F(ExportHuggingFace, ShardsAndTypes) {
  TinyDecoder("qwen2").write(in_);
  import_hugging_face(in_, out_).value();
  ExportReport report = exported(out_, {.shard_bytes = 40'000});
  EXPECT_GT(std::count_if(report.files.begin(), report.files.end(),
                          [](const std::string& f) { return f.ends_with(".safetensors"); }),
            2);
  EXPECT_TRUE(fs::exists(back_ / "model.safetensors.index.json"));
  expect_same_tensors(in_, back_, "shards");
  report = exported(out_, {.type = ExportType::kBf16});
  EXPECT_EQ(read_json(back_ / "config.json").value()["dtype"], "bfloat16");
  EXPECT_EQ(ModelWeights::open(back_).value().find("model.norm.weight")->type, "BF16");
  import_hugging_face(in_, out_, {.type = ImportType::kQ8_0}).value();
  report = exported(out_);
  ASSERT_EQ(report.notes.size(), 1u);
  EXPECT_NE(report.notes[0].find("quantised"), std::string::npos);
}

/// Norms that 1 + w rounds are kept beside; a norm that was changed since is written as it is now.
TEST_F(ExportHuggingFace, GemmasSmallNorms) {
  TinyDecoder model("gemma2");
  auto& norm = model.tensors["model.norm.weight"].values;
  norm[0] = 1e-9f;
  norm[1] = -0.0f;
  model.write(in_);
  import_hugging_face(in_, out_).value();
  const GgufFile file = GgufFile::open(out_).value();
  EXPECT_NE(file.find("tailor.exact.model.norm.weight"), nullptr);
  exported(out_);
  expect_same_tensors(in_, back_, "small norms");
  GgufWriter changed;
  for (const auto& [key, value] : file.values()) changed.set(key, value);
  for (const GgufTensor& t : file.tensors()) {
    changed.add(t.name, t.type, t.shape, [&t]() -> Result<std::vector<float>> {
      auto values = to_f32(t);
      if (t.name == "output_norm.weight") (*values)[5] = 3;
      return values;
    });
  }
  changed.write(dir_.path() / "changed.gguf").value();
  exported(dir_.path() / "changed.gguf");
  const auto values = to_f32(*ModelWeights::open(back_).value().find("model.norm.weight"));
  EXPECT_EQ(values[0], 0.0f);
  EXPECT_EQ(values[5], 2.0f);
}

TEST_F(ExportHuggingFace, Refusals) {
  TinyDecoder("llama_variant").write(in_);
  import_hugging_face(in_, out_).value();
  strip(out_, dir_.path() / "bare.gguf");
  expect_error(export_hugging_face(dir_.path() / "bare.gguf", back_), ErrorCode::kInvalidArgument,
               "are not those of a Llama 3 model");
  EXPECT_FALSE(fs::exists(back_ / "config.json"));
  exported(out_);
  expect_error(export_hugging_face(out_, back_), ErrorCode::kInvalidArgument, "there is a model already");
  const GgufFile file = GgufFile::open(out_).value();
  GgufWriter less;
  for (const auto& [key, value] : file.values()) less.set(key, value);
  for (const GgufTensor& t : file.tensors()) {
    if (t.name != "blk.1.ffn_up.weight") less.add_raw(t.name, t.type, t.shape, [&t] { return Result(t.bytes); });
  }
  less.write(dir_.path() / "less.gguf").value();
  expect_error(export_hugging_face(dir_.path() / "less.gguf", dir_.path() / "x"), ErrorCode::kCorruptData,
               "tensor 'blk.1.ffn_up.weight' is missing");
}

}  // namespace
}  // namespace tailor
