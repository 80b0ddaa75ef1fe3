#include "model/catalogue.h"

#include <gtest/gtest.h>

#include "core/hash.h"
#include "core/json.h"
#include "model/file_hash.h"
#include "model/gguf_writer.h"
#include "model/test_support.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;

TEST(Catalogue, DefaultModels) {
  const fs::path models = testing::from_environment("TAILOR_MODELS_DIR");
  const auto encoder = resolve_model("all-minilm-l6-v2", models).value();
  EXPECT_EQ(encoder.kind, ModelKind::kEncoder);
  EXPECT_EQ(encoder.architecture, "bert");
  EXPECT_TRUE(encoder.is_hugging_face);
  EXPECT_EQ(encoder.layers, 6u);
  EXPECT_EQ(encoder.embedding_length, 384u);
  EXPECT_EQ(encoder.context_length, 512u);
  EXPECT_EQ(encoder.max_sequence_length, 256u);
  EXPECT_EQ(encoder.parameters, 22565376u);
  EXPECT_EQ(encoder.bytes, encoder.parameters * 4);
  EXPECT_EQ(encoder.file_type, "f32");
  EXPECT_EQ(encoder.licence, "apache-2.0");
  EXPECT_EQ(encoder.languages, std::vector<std::string>{"en"});

  const auto decoder = resolve_model("smollm2-135m-instruct", models).value();
  EXPECT_EQ(decoder.kind, ModelKind::kDecoder);
  EXPECT_EQ(decoder.architecture, "llama");
  EXPECT_EQ(decoder.layers, 30u);
  EXPECT_EQ(decoder.embedding_length, 576u);
  EXPECT_EQ(decoder.context_length, 8192u);
  EXPECT_EQ(decoder.vocabulary, 49152u);
  EXPECT_EQ(decoder.parameters, 134515008u);
  EXPECT_EQ(decoder.file_type, "q4_1");
  EXPECT_EQ(decoder.licence, "apache-2.0");

  const auto all = list_models(models);
  ASSERT_GE(all.size(), 2u);
  EXPECT_EQ(all[0].id, "all-minilm-l6-v2");
  EXPECT_EQ(all[1].id, "smollm2-135m-instruct");
}

TEST(Catalogue, PathsAreModels) {
  const auto m = resolve_model(testing::smollm_file().string(), "/nowhere").value();
  EXPECT_EQ(m.id, "SmolLM2-135M-Instruct.Q4_1");
  EXPECT_EQ(m.licence, "apache-2.0");
  EXPECT_EQ(describe_model(testing::smollm_file().parent_path()).value().path, testing::smollm_file());
  EXPECT_EQ(describe_model(testing::minilm_dir() / "").value().id, "all-minilm-l6-v2");
}

TEST(Catalogue, UnknownNamesGiveTheNearest) {
  const auto r = resolve_model("all-minilm-l6-v1", "/nowhere");
  expect_error(r, ErrorCode::kNotFound, "no model or file 'all-minilm-l6-v1'");
  EXPECT_NE(r.error().hint.find("did you mean 'all-minilm-l6-v2'"), std::string::npos);
  EXPECT_NE(resolve_model("SmolLM2-135M-instruct", "/nowhere").error().hint.find("did you mean 'smollm2"),
            std::string::npos);
  const auto far = resolve_model("x", "/nowhere");
  EXPECT_NE(far.error().hint.find("known models: all-minilm-l6-v2"), std::string::npos);
  expect_error(resolve_model("", "/nowhere"), ErrorCode::kInvalidArgument, "empty");
  const auto absent = resolve_model("all-minilm-l6-v2", "/nowhere");
  expect_error(absent, ErrorCode::kNotFound, "/nowhere/all-minilm-l6-v2");
  EXPECT_NE(absent.error().hint.find("setup.sh"), std::string::npos);
}

TEST(Catalogue, FindsUsersModelsByName) {
  const TemporaryDirectory dir("catalogue-test");
  fs::create_symlink(testing::smollm_file(), dir.path() / "mine.gguf");
  fs::create_symlink(testing::minilm_dir(), dir.path() / "encoder");
  write_file_atomic(dir.path() / "broken.gguf", "GGUF").value();
  EXPECT_EQ(resolve_model("mine", dir.path()).value().layers, 30u);
  EXPECT_EQ(resolve_model("mine.gguf", dir.path()).value().id, "mine");
  EXPECT_EQ(resolve_model("encoder", dir.path()).value().layers, 6u);
  const auto all = list_models(dir.path());
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].id, "encoder");
  EXPECT_EQ(all[1].id, "mine");
  EXPECT_NE(resolve_model("minne", dir.path()).error().hint.find("'mine'"), std::string::npos);
}

TEST(Catalogue, RefusesWhatIsNoModel) {
  const TemporaryDirectory dir("catalogue-test");
  expect_error(describe_model(dir.path()), ErrorCode::kInvalidArgument, "neither a config.json nor a .gguf");
  expect_error(describe_model(dir.path() / "x"), ErrorCode::kNotFound, "no such file");
  expect_error(describe_model(testing::minilm_dir() / "model.safetensors"), ErrorCode::kInvalidArgument,
               "weights alone");
  expect_error(describe_model(testing::minilm_dir() / "README.md"), ErrorCode::kCorruptData, "not a GGUF file");
  GgufWriter writer;
  writer.set("general.architecture", GgufValue::string("mamba"));
  writer.write(dir.path() / "a.gguf").value();
  expect_error(describe_model(dir.path()), ErrorCode::kInvalidArgument, "'mamba'");
  writer.write(dir.path() / "b.gguf").value();
  expect_error(describe_model(dir.path()), ErrorCode::kInvalidArgument, "2 .gguf files");
  writer.set("general.architecture", GgufValue::string("llama"));
  writer.set("general.type", GgufValue::string("adapter"));
  writer.write(dir.path() / "b.gguf").value();
  expect_error(describe_model(dir.path() / "b.gguf"), ErrorCode::kInvalidArgument, "is an adapter, not a model");
}

TEST(FileHash, IsRememberedUntilTheFileChanges) {
  const TemporaryDirectory dir("hash-test");
  const auto file = dir.path() / "weights.bin";
  const std::string content(2 << 20, 'x');
  write_file_atomic(file, content).value();
  EXPECT_EQ(cached_sha256(file).value(), sha256_hex(content));
  const auto note = dir.path() / "weights.bin.sha256.json";
  ASSERT_TRUE(fs::exists(note));
  // A note for the file as it is now is believed: that it is used shows in a false hash coming back.
  auto json = read_json(note).value();
  json["sha256"] = std::string(64, '0');
  write_json_atomic(note, json).value();
  EXPECT_EQ(cached_sha256(file).value(), std::string(64, '0'));
  write_file_atomic(file, content + "y").value();
  EXPECT_EQ(cached_sha256(file).value(), sha256_hex(content + "y"));
  write_file_atomic(note, "{").value();
  EXPECT_EQ(cached_sha256(file).value(), sha256_hex(content + "y"));
  expect_error(cached_sha256(dir.path() / "none"), ErrorCode::kNotFound, "none");
}

TEST(FileHash, DirectoryHashFollowsItsContent) {
  const TemporaryDirectory dir("hash-test");
  write_file_atomic(dir.path() / "config.json", "{}").value();
  write_file_atomic(dir.path() / "model.safetensors", "w").value();
  const auto first = model_sha256(dir.path()).value();
  write_file_atomic(dir.path() / "notes.txt", "anything").value();
  EXPECT_EQ(model_sha256(dir.path()).value(), first);
  write_file_atomic(dir.path() / "vocab.txt", "a").value();
  EXPECT_NE(model_sha256(dir.path()).value(), first);
}

}  // namespace
}  // namespace tailor
