#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <fstream>

#include "core/rng.h"
#include "model/gguf_check.h"
#include "model/gguf_file.h"
#include "model/gguf_writer.h"
#include "model/llama_runtime.h"
#include "model/test_support.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::raw;

std::string text(const std::string& s) {
  return raw<std::uint64_t>(s.size()) + s;
}
std::string value(GgufType type, const std::string& payload) {
  return raw(static_cast<std::uint32_t>(type)) + payload;
}
std::string array(std::uint32_t type, std::uint64_t count, const std::string& payload) {
  return value(GgufType::kArray, raw(type) + raw(count) + payload);
}
std::string tensor(const std::string& name, const std::vector<std::uint64_t>& shape, std::int32_t type,
                   std::uint64_t offset) {
  std::string out = text(name) + raw<std::uint32_t>(static_cast<std::uint32_t>(shape.size()));
  for (const auto d : shape) out += raw(d);
  return out + raw(type) + raw(offset);
}
std::string header(std::uint64_t tensors, std::uint64_t values, std::uint32_t version = 3) {
  return "GGUF" + raw(version) + raw(tensors) + raw(values);
}
std::string padded(std::string bytes, std::size_t alignment = 32) {
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment, '\0');
  return bytes;
}

class GgufTest : public ::testing::Test {
 protected:
  fs::path put(const std::string& bytes, const std::string& name = "m.gguf") {
    const auto file = dir_.path() / name;
    std::ofstream(file, std::ios::binary) << bytes;  // thousands of files: no wait for the disk
    return file;
  }
  void refuses(const std::string& bytes, const std::string& part, ErrorCode code = ErrorCode::kCorruptData) {
    const auto file = put(bytes);
    const auto result = GgufFile::open(file);
    expect_error(result, code, part);
    expect_error(result, code, file.string());
  }
  TemporaryDirectory dir_{"gguf-test"};
};

TEST_F(GgufTest, WritesAndReadsBackEveryKindOfValue) {
  GgufWriter writer;
  writer.set("general.architecture", GgufValue::string("llama"));
  writer.set("a", GgufValue::u32(7));
  writer.set("b", GgufValue::f32(0.5f));
  writer.set("c", GgufValue::boolean(true));
  writer.set("d", GgufValue::u64(1ull << 40));
  writer.set("e", GgufValue::strings(std::vector<std::string>{"x", "", "zü"}));
  writer.set("f", GgufValue::i32s(std::vector<std::int32_t>{-1, 2}));
  writer.set("g", GgufValue::f32s(std::vector<float>{1.5f}));
  writer.set("gone", GgufValue::u32(1));
  writer.erase("gone");
  writer.set("a", GgufValue::u32(8));
  writer.add("t", TensorType::kF32, {2, 3}, [] { return std::vector<float>{1, 2, 3, 4, 5, 6}; });
  writer.add_raw("r", TensorType::kF32, {1},
                 []() -> Result<std::string_view> { return std::string_view("\0\0\x80\x3f", 4); });
  const auto out = dir_.path() / "w.gguf";
  writer.write(out).value();
  const auto file = GgufFile::open(out).value();
  EXPECT_EQ(file.values().size(), 8u);
  EXPECT_EQ(file.architecture().value(), "llama");
  EXPECT_EQ(file.integer("a").value(), 8);
  EXPECT_EQ(file.number("b").value(), 0.5);
  EXPECT_EQ(file.number("a").value(), 8.0);
  EXPECT_EQ(file.find("c")->as_bool(), true);
  EXPECT_EQ(file.integer("d").value(), 1ll << 40);
  EXPECT_EQ(file.find("e")->as_strings().value(), (std::vector<std::string_view>{"x", "", "zü"}));
  EXPECT_EQ(file.find("f")->as_integers().value(), (std::vector<std::int64_t>{-1, 2}));
  EXPECT_EQ(file.find("g")->as_numbers().value(), std::vector<double>{1.5});
  EXPECT_EQ(file.find("none"), nullptr);
  EXPECT_FALSE(file.find("a")->as_string() || file.find("a")->as_bool() || file.find("a")->as_strings() ||
               file.find("b")->as_integer() || file.find("e")->as_integers() || file.find("e")->as_numbers());
  EXPECT_EQ(file.tensor_f32("t").value(), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(rows_to_f32(*file.tensor("t"), 1, 2).value(), (std::vector<float>{3, 4, 5, 6}));
  EXPECT_EQ(file.tensor_f32("r").value(), std::vector<float>{1.0f});
  expect_error(rows_to_f32(*file.tensor("t"), 2, 2), ErrorCode::kInvalidArgument, "has 3 rows");
  expect_error(file.tensor_f32("none"), ErrorCode::kNotFound, "no tensor 'none'");
  expect_error(file.integer("none"), ErrorCode::kNotFound, "'none' is missing");
  expect_error(file.integer("general.architecture"), ErrorCode::kCorruptData, "not an integer");
  expect_error(file.number("general.architecture"), ErrorCode::kCorruptData, "not a number");
  expect_error(file.string("a"), ErrorCode::kCorruptData, "not a string");
}

TEST_F(GgufTest, QuantisedTypesStayWithinTheirStep) {
  Rng rng(3);
  std::vector<float> values(64 * 8);
  for (float& v : values) v = static_cast<float>(rng.normal());
  for (const auto& [type, tolerance] : {std::pair{TensorType::kF16, 2e-3f}, std::pair{TensorType::kBF16, 2e-2f},
                                        std::pair{TensorType::kQ8_0, 2e-2f}, std::pair{TensorType::kQ4_0, 0.4f}}) {
    GgufWriter writer;
    writer.add("t", type, {64, 8}, [&] { return values; });
    const auto out = dir_.path() / "q.gguf";
    writer.write(out).value();
    const auto file = GgufFile::open(out).value();
    EXPECT_EQ(file.tensor("t")->bytes.size(), tensor_bytes(type, 64, 512));
    const auto back = file.tensor_f32("t").value();
    for (std::size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(back[i], values[i], tolerance) << name_of(type);
    EXPECT_EQ(rows_to_f32(*file.tensor("t"), 7, 1).value(), std::vector<float>(back.end() - 64, back.end()));
  }
}

TEST_F(GgufTest, WriterRefusesWhatDoesNotFit) {
  const auto out = dir_.path() / "w.gguf";
  const auto with = [&](TensorType type, std::vector<std::uint64_t> shape, std::vector<float> values) {
    GgufWriter writer;
    writer.add("t", type, std::move(shape), [values] { return values; });
    return writer.write(out);
  };
  expect_error(with(TensorType::kQ8_0, {33}, std::vector<float>(33)), ErrorCode::kInvalidArgument,
               "cannot be stored as q8_0");
  expect_error(with(TensorType::kF32, {}, {}), ErrorCode::kInvalidArgument, "cannot be stored");
  expect_error(with(TensorType::kF32, {1, 1, 1, 1, 1}, {1}), ErrorCode::kInvalidArgument, "cannot be stored");
  expect_error(with(TensorType::kF32, {4}, {1}), ErrorCode::kInvalidArgument, "1 values for shape [4]");
  expect_error(with(TensorType::kQ8_0, {32}, std::vector<float>(32, NAN)), ErrorCode::kInvalidArgument, "not finite");
  expect_error(with(static_cast<TensorType>(16), {256}, std::vector<float>(256)), ErrorCode::kInvalidArgument,
               "cannot be written");
  GgufWriter twice;
  twice.add("t", TensorType::kF32, {1}, [] { return std::vector<float>{1}; });
  twice.add("t", TensorType::kF32, {1}, [] { return std::vector<float>{1}; });
  expect_error(twice.write(out), ErrorCode::kInvalidArgument, "'t' is empty, too long or taken");
  GgufWriter failing;
  failing.add("t", TensorType::kF32, {1}, []() -> Result<std::vector<float>> {
    return Error{ErrorCode::kIo, "source broke", ""};
  });
  expect_error(failing.write(out), ErrorCode::kIo, "source broke");
  GgufWriter short_bytes;
  short_bytes.add_raw("t", TensorType::kF32, {2}, [] { return Result(std::string_view("1234")); });
  expect_error(short_bytes.write(out), ErrorCode::kInvalidArgument, "has 4 bytes");
  EXPECT_FALSE(fs::exists(out));
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_.path()), fs::directory_iterator()), 0);
}

TEST_F(GgufTest, DequantisesAModel) {
  const auto whole = GgufFile::open(testing::smollm_file()).value();
  GgufWriter part;  // one layer is enough
  for (const auto& [key, v] : whole.values()) part.set(key, v);
  for (const auto& t : whole.tensors()) {
    if (t.name.starts_with("blk.0.") || t.name == "output_norm.weight") {
      part.add_raw(t.name, t.type, t.shape, [&t] { return Result(t.bytes); });
    }
  }
  const auto in = dir_.path() / "part.gguf";
  const auto out = dir_.path() / "f32.gguf";
  part.write(in).value();
  dequantize_to_f32(in, out).value();
  const auto from = GgufFile::open(in).value();
  const auto to = GgufFile::open(out).value();
  ASSERT_EQ(to.tensors().size(), 10u);
  EXPECT_EQ(to.integer("general.file_type").value(), 0);
  EXPECT_EQ(to.find("tokenizer.ggml.tokens")->encoded(), from.find("tokenizer.ggml.tokens")->encoded());
  for (const auto& t : to.tensors()) {
    EXPECT_EQ(t.type, TensorType::kF32);
    EXPECT_EQ(to_f32(t).value(), whole.tensor_f32(t.name).value()) << t.name;
  }
}

/// q4_1: 32 values from a scale, a minimum and 4 bits each; a hand case, so that the test does not lean on ggml alone.
TEST_F(GgufTest, Q41BlocksByHand) {
  std::string block = raw<std::uint16_t>(0x3800) + raw<std::uint16_t>(0xBC00);  // scale 0.5, minimum -1
  for (int i = 0; i < 16; ++i) block += static_cast<char>(i | (15 - i) << 4);
  GgufWriter writer;
  writer.add_raw("t", TensorType::kQ4_1, {32}, [&] { return Result(std::string_view(block)); });
  writer.write(dir_.path() / "w.gguf").value();
  const auto values = GgufFile::open(dir_.path() / "w.gguf").value().tensor_f32("t").value();
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(values[static_cast<std::size_t>(i)], 0.5f * static_cast<float>(i) - 1.0f);
    EXPECT_EQ(values[static_cast<std::size_t>(i + 16)], 0.5f * static_cast<float>(15 - i) - 1.0f);
  }
}

TEST_F(GgufTest, RefusesTruncatedFilesAtEveryLength) {
  GgufWriter writer;
  writer.set("general.architecture", GgufValue::string("llama"));
  writer.set("list", GgufValue::strings(std::vector<std::string>{"a", "b"}));
  writer.set("ids", GgufValue::i32s(std::vector<std::int32_t>{1, 2}));
  writer.add("t", TensorType::kF32, {8}, [] { return std::vector<float>(8, 1.0f); });
  const auto out = dir_.path() / "w.gguf";
  writer.write(out).value();
  const std::string whole = read_file(out).value();
  for (std::size_t n = 0; n < whole.size(); ++n) {
    expect_error(GgufFile::open(put(whole.substr(0, n))), ErrorCode::kCorruptData, "m.gguf");
  }
  EXPECT_TRUE(GgufFile::open(put(whole)));
}

TEST_F(GgufTest, RefusesBadHeaders) {
  expect_error(GgufFile::open(dir_.path() / "none.gguf"), ErrorCode::kNotFound, "none.gguf");
  refuses("not a model", "not a GGUF file");
  refuses(header(0, 0, 1), "GGUF version 1", ErrorCode::kInvalidArgument);
  refuses(header(0, 0, 4), "GGUF version 4", ErrorCode::kInvalidArgument);
  refuses(header(0, 0, 0x03000000), "big-endian", ErrorCode::kInvalidArgument);
  refuses(header(1ull << 63, 0), "the limit is 131072");
  refuses(header(0, 1ull << 63), "the limit is 65536");
  refuses(header(0, 60000), "the file ends inside metadata key 0");
  refuses(header(100000, 0), "the file ends inside");
}

TEST_F(GgufTest, RefusesBadValues) {
  refuses(header(0, 1) + text(""), "metadata key 0 is empty");
  refuses(header(0, 1) + raw<std::uint64_t>(1 << 20) + "k", "claims 1048576 bytes, the limit is 65535");
  refuses(header(0, 1) + text("k") + raw<std::uint32_t>(13) + raw<std::uint64_t>(0), "unknown type 13");
  refuses(header(0, 1) + text("k") + value(GgufType::kString, raw(~0ull)), "the limit is 67108864");
  refuses(header(0, 1) + text("k") + value(GgufType::kString, raw<std::uint64_t>(9) + "short"), "the file has 5 left");
  refuses(header(0, 1) + text("k") + array(9, 1, array(4, 1, raw<std::uint32_t>(1))), "array of arrays");
  refuses(header(0, 1) + text("k") + array(77, 1, "x"), "unknown element type 77");
  refuses(header(0, 1) + text("k") + array(4, ~0ull, ""), "the limit is 16777216");
  refuses(header(0, 1) + text("k") + array(12, 1 << 23, "x"), "needs 67108864 bytes");
  refuses(header(0, 1) + text("k") + array(8, 1 << 23, ""), "the file ends inside the value of 'k'");
  const std::string pair = text("k") + value(GgufType::kU32, raw<std::uint32_t>(1));
  refuses(header(0, 2) + pair + pair, "'k' is there twice");
  refuses(header(0, 1) + text("evil\x1b[2J") + raw<std::uint32_t>(99), "'evil?[2J'");
  for (const std::uint32_t alignment : {0u, 3u, 1u << 20}) {
    refuses(header(0, 1) + text("general.alignment") + value(GgufType::kU32, raw(alignment)), "not a power of two");
  }
  refuses(header(0, 1) + text("general.alignment") + value(GgufType::kString, text("32")), "not a power of two");
}

TEST_F(GgufTest, RefusesBadTensors) {
  const std::string data(128, '\0');
  const auto one = [&](const std::string& info) { return padded(header(1, 0) + info) + data; };
  EXPECT_TRUE(GgufFile::open(put(one(tensor("t", {32}, 0, 0)))));
  refuses(one(tensor("", {32}, 0, 0)), "tensor 0 has no name");
  refuses(one(tensor(std::string(64, 'n'), {32}, 0, 0)), "the limit is 63");
  refuses(one(tensor("t", {}, 0, 0)), "has 0 dimensions");
  refuses(one(tensor("t", {1, 1, 1, 1, 1}, 0, 0)), "has 5 dimensions");
  refuses(one(tensor("t", {0}, 0, 0)), "impossible size 0");
  refuses(one(tensor("t", {1ull << 62, 8}, 0, 0)), "impossible size");
  refuses(one(tensor("t", {1ull << 32, 1ull << 32}, 0, 0)), "impossible size");
  for (const std::int32_t type : {-1, 4, 5, 31, 36, 43, 1 << 30}) {
    refuses(one(tensor("t", {32}, type, 0)), "unknown type", ErrorCode::kInvalidArgument);
  }
  refuses(one(tensor("t", {33}, 8, 0)), "needs a multiple of 32");
  refuses(one(tensor("t", {64}, 0, 0)), "should end at byte");
  refuses(one(tensor("t", {32}, 0, 32)), "is at data byte 32, expected 0");
  refuses(one(tensor("t", {32}, 0, 1)), "expected 0");
  refuses(one(tensor("t", {32}, 0, ~0ull)), "expected 0");
  refuses(padded(header(2, 0) + tensor("t", {8}, 0, 0) + tensor("t", {8}, 0, 32)) + data, "'t' is there twice");
  refuses(padded(header(2, 0) + tensor("t", {8}, 0, 0) + tensor("u", {8}, 0, 0)) + data,
          "is at data byte 0, expected 32");
}

TEST_F(GgufTest, OtherAlignmentsAreRead) {
  const std::string head =
      header(1, 1) + text("general.alignment") + value(GgufType::kU32, raw<std::uint32_t>(1)) + tensor("t", {2}, 1, 0);
  const auto file = GgufFile::open(put(head + raw<std::uint16_t>(0x3C00) + raw<std::uint16_t>(0xC000))).value();
  EXPECT_EQ(file.alignment(), 1u);
  EXPECT_EQ(file.tensor_f32("t").value(), (std::vector<float>{1.0f, -2.0f}));
}

TEST_F(GgufTest, RandomDamageIsRefusedOrHarmless) {
  GgufWriter writer;
  writer.set("general.architecture", GgufValue::string("llama"));
  writer.set("list", GgufValue::strings(std::vector<std::string>{"a", "bb", "ccc"}));
  writer.add("t", TensorType::kQ8_0, {32, 2}, [] { return std::vector<float>(64, 1.0f); });
  writer.add("u", TensorType::kF16, {3}, [] { return std::vector<float>(3, 1.0f); });
  const auto out = dir_.path() / "w.gguf";
  writer.write(out).value();
  const std::string whole = read_file(out).value();
  Rng rng(11);
  int opened = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = whole;
    for (std::uint64_t n = 1 + rng.below(3); n > 0; --n) {
      static constexpr unsigned char kNasty[] = {0, 1, 0x7F, 0x80, 0xFF};
      bytes[rng.below(bytes.size())] = static_cast<char>(rng.below(2) != 0 ? kNasty[rng.below(5)] : rng.below(256));
    }
    const auto file = GgufFile::open(put(bytes));
    if (!file) continue;
    ++opened;
    for (const auto& t : file->tensors()) (void)to_f32(t);
    for (const auto& [key, v] : file->values()) (void)(v.as_strings() || v.as_numbers() || v.as_string());
    (void)check_llama_metadata(*file);
  }
  EXPECT_GT(opened, 100);
}

/// SmolLM2's metadata with one value changed, without weights.
class LlamaCheckTest : public GgufTest {
 protected:
  LlamaCheckTest() {
    const auto source = GgufFile::open(testing::smollm_file()).value();
    for (const auto& [key, v] : source.values()) writer_.set(key, v);
  }
  void refuses_value(const std::string& key, const GgufValue& v, const std::string& part) {
    GgufWriter writer = writer_;
    writer.set(key, v);
    const auto out = dir_.path() / "v.gguf";
    writer.write(out).value();
    expect_error(load_llama_model(out, {.vocab_only = true}), ErrorCode::kCorruptData, part);
  }
  GgufWriter writer_;
};

TEST_F(LlamaCheckTest, AcceptsTheUnchangedFile) {
  writer_.write(dir_.path() / "v.gguf").value();
  EXPECT_TRUE(load_llama_model(dir_.path() / "v.gguf", {.vocab_only = true}));
}

TEST_F(LlamaCheckTest, RefusesWhatLlamaWouldAbortOn) {
  refuses_value("llama.block_count", GgufValue::u32(0), "'llama.block_count' is 0, expected 1 to 512");
  refuses_value("llama.block_count", GgufValue::u32(513), "expected 1 to 512");
  refuses_value("llama.block_count", GgufValue::string("many"), "not a whole number");
  refuses_value("llama.attention.head_count", GgufValue::u32(0), "head_count' is 0");
  refuses_value("llama.attention.head_count_kv", GgufValue::u32(0), "head_count_kv' is 0");
  refuses_value("llama.attention.head_count_kv", GgufValue::u32(2), "9 attention heads cannot share 2");
  refuses_value("llama.attention.head_count", GgufValue::i32s(std::vector<std::int32_t>{9, 9}),
                "2 values for 30 layers");
  refuses_value("llama.embedding_length", GgufValue::u32(577), "not a multiple of 9");
  refuses_value("llama.context_length", GgufValue::u32(0), "context_length' is 0");
  refuses_value("llama.expert_count", GgufValue::u32(5000), "expert_count' is 5000");
  refuses_value("llama.expert_used_count", GgufValue::u32(3), "expert_used_count' is 3, expected 0 to 0");
  refuses_value("llama.pooling_type", GgufValue::u32(77), "pooling_type' is 77");
  refuses_value("llama.rope.scaling.type", GgufValue::string("odd"), "rope.scaling.type");
  refuses_value("tokenizer.ggml.tokens", GgufValue::u32(1), "no list of strings");
  refuses_value("tokenizer.ggml.tokens", GgufValue::strings({}), "no list of strings");
  std::vector<std::string> tokens(49152, "same");
  refuses_value("tokenizer.ggml.tokens", GgufValue::strings(tokens), "token 1 is in the vocabulary twice");
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = std::to_string(i);
  tokens[5] = std::string("a\0b", 3);
  refuses_value("tokenizer.ggml.tokens", GgufValue::strings(tokens), "token 5 holds a zero byte");
  refuses_value("tokenizer.ggml.token_type", GgufValue::i32s(std::vector<std::int32_t>{1}),
                "one number for each of the 49152");
  refuses_value("tokenizer.ggml.scores", GgufValue::f32s(std::vector<float>{1}), "one number for each of the 49152");
  refuses_value("tokenizer.ggml.bos_token_id", GgufValue::u32(49152), "bos_token_id' is 49152, expected 0 to 49151");
  refuses_value("tokenizer.ggml.merges", GgufValue::u32(1), "merges");
  refuses_value("tokenizer.ggml.model", GgufValue::string("none"), "no vocabulary");
  refuses_value("tokenizer.ggml.precompiled_charsmap", GgufValue::string("x"), "not an array of bytes");
  refuses_value("tokenizer.ggml.precompiled_charsmap",
                GgufValue(GgufType::kArray, raw<std::uint32_t>(0) + raw<std::uint64_t>(5) + raw(~0u) + "x"),
                "does not follow its format");
  refuses_value("general.architecture", GgufValue::string(""), "not a name");
}

TEST_F(LlamaCheckTest, SaysWhatLlamaRefuses) {
  writer_.set("general.architecture", GgufValue::string("no-such-model"));
  for (const char* key : {"block_count", "context_length", "embedding_length"}) {
    writer_.set(std::string("no-such-model.") + key, GgufValue::u32(8));
  }
  writer_.write(dir_.path() / "v.gguf").value();
  expect_error(load_llama_model(dir_.path() / "v.gguf", {.vocab_only = true}), ErrorCode::kInvalidArgument,
               "no-such-model");
  writer_.set("split.count", GgufValue::u32(3));
  writer_.write(dir_.path() / "v.gguf").value();
  expect_error(load_llama_model(dir_.path() / "v.gguf"), ErrorCode::kInvalidArgument, "one of 3 parts");
}

TEST_F(LlamaCheckTest, MissingWeightsAreAnErrorNotAnAbort) {
  writer_.write(dir_.path() / "v.gguf").value();
  expect_error(load_llama_model(dir_.path() / "v.gguf"), ErrorCode::kInvalidArgument, "cannot load");
}

class CountingLogger final : public Logger {
 public:
  void log(LogLevel, std::string_view) override { ++lines; }
  std::atomic<int> lines = 0;
};

TEST(LlamaRuntime, IsSilentUnlessAskedToSpeak) {
  CountingLogger logger;
  set_llama_log(&logger);
  EXPECT_TRUE(load_llama_model(testing::smollm_file(), {.vocab_only = true}));
  const int spoken = logger.lines;
  EXPECT_GT(spoken, 0);
  set_llama_log(nullptr);
  ::testing::internal::CaptureStderr();
  ::testing::internal::CaptureStdout();
  EXPECT_TRUE(load_llama_model(testing::smollm_file(), {.vocab_only = true}));
  EXPECT_EQ(::testing::internal::GetCapturedStderr() + ::testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(logger.lines, spoken);
}

}  // namespace
}  // namespace tailor
