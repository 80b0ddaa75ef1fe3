#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <mutex>

#include "core/files.h"
#include "fuzz.h"
#include "infer/engine.h"
#include "small_model.h"

namespace tailor::fuzz {
namespace {

/// A file whose structure is right and whose words, names, shapes and types the bytes choose.
class Invented {
 public:
  explicit Invented(std::string_view bytes) : bytes_(bytes) {}

  std::string file(const TemporaryDirectory& dir) {
    GgufWriter writer;
    for (const char* key : {"general.type", "general.architecture", "adapter.type"}) set_word(writer, key);
    if (next(4) > 0) writer.set("adapter.lora.alpha", odd(8) ? value() : GgufValue::f32(8));
    if (odd(16)) writer.set("general.alignment", GgufValue::u32(static_cast<std::uint32_t>(next(256))));
    if (odd(16)) writer.set("adapter.alora.invocation_tokens", value());
    for (std::size_t n = next(4); n > 0; --n) add_pair(writer);
    if (!writer.write(dir.path() / "adapter.gguf")) return {};  // a name twice, a row that is no whole block
    return read_file(dir.path() / "adapter.gguf").value();
  }

 private:
  std::size_t next(std::size_t n) { return at_ < bytes_.size() ? static_cast<unsigned char>(bytes_[at_++]) % n : 0; }
  bool odd(std::size_t n) { return next(n) == 1; }

  GgufValue value() {
    switch (next(6)) {
      case 0:
        return GgufValue::u32(static_cast<std::uint32_t>(next(256)));
      case 1:
        return GgufValue::string("lora");
      case 2:
        return GgufValue::f32(next(2) == 0 ? std::numeric_limits<float>::quiet_NaN() : 1e38F);
      case 3:
        return GgufValue::i32s(std::vector<std::int32_t>(next(4), 7));
      case 4:
        return GgufValue::boolean(true);
      default:
        return GgufValue::strings(std::vector<std::string>(next(3), "adapter"));
    }
  }
  void set_word(GgufWriter& writer, const std::string& key) {
    if (odd(16)) return;
    const char* right = key == "general.type" ? "adapter" : key == "adapter.type" ? "lora" : "llama";
    writer.set(key, odd(16) ? value() : GgufValue::string(right));
  }
  void add_pair(GgufWriter& writer) {
    struct Weight {
      const char* name;
      std::uint64_t in, out;
    };
    static constexpr Weight kWeights[] = {{"blk.0.attn_q.weight", 32, 32},
                                          {"blk.0.attn_k.weight", 32, 16},
                                          {"blk.0.attn_output.weight", 32, 32},
                                          {"blk.0.ffn_gate.weight", 32, 48},
                                          {"blk.0.ffn_down.weight", 48, 32},
                                          {"token_embd.weight", 32, 265},
                                          {"output.weight", 32, 265},
                                          {"blk.0.attn_norm.weight", 32, 1},
                                          {"blk.1.attn_q.weight", 32, 32},
                                          {"blk.lora_a.0.attn_q.weight", 32, 32},
                                          {"", 1, 1}};
    const Weight& weight = kWeights[next(std::size(kWeights))];
    const std::uint64_t rank = odd(8) ? 1 + next(256) : 1 + next(8);
    std::vector<std::uint64_t> a{weight.in, rank}, b{rank, weight.out};
    if (std::string_view(weight.name) == "token_embd.weight" && !odd(4)) {
      a = {rank, weight.out};
      b = {rank, weight.in};
    }
    spoil(a);
    spoil(b);
    if (!odd(16)) add(writer, std::string(weight.name) + ".lora_a", std::move(a));
    if (!odd(16)) add(writer, std::string(weight.name) + ".lora_b", std::move(b));
    if (odd(16)) add(writer, "blk.0.attn_norm.weight", {32});
  }
  void spoil(std::vector<std::uint64_t>& shape) {
    if (odd(8)) shape.push_back(1 + next(3));
    if (odd(8)) shape[next(shape.size())] = 1 + next(64);
    if (odd(16)) std::swap(shape[0], shape[1]);
    if (odd(16)) shape.resize(1);
  }
  void add(GgufWriter& writer, const std::string& name, std::vector<std::uint64_t> shape) {
    std::uint64_t count = 1;
    for (const std::uint64_t n : shape) count *= n;
    const TensorType type = odd(4) ? static_cast<TensorType>(next(40)) : TensorType::kF32;
    const std::uint64_t size = odd(64) ? 0 : tensor_bytes(type, shape[0], count);
    const std::string bytes(size, static_cast<char>(next(256)));
    if (size > 0)
      writer.add_raw(name, type, std::move(shape),
                     [bytes]() -> Result<std::string_view> { return std::string_view(bytes); });
  }

  std::string_view bytes_;
  std::size_t at_ = 0;
};

/// Waits for one answer, however it ends.
class Listener final : public AnswerListener {
 public:
  void on_prompt(int, const PromptRead&) override {}
  void on_text(int, std::string_view, std::span<const SampledToken>) override {}
  void on_end(int, const AnswerEnd&) override { end(); }
  void on_error(int, const Error&) override { end(); }
  void wait() {
    std::unique_lock lock(mutex_);
    if (changed_.wait_for(lock, std::chrono::seconds(60), [&] { return ended_; })) return;
    std::fprintf(stderr, "no answer for a minute\n");
    std::abort();
  }

 private:
  void end() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
};

Engine load(const TemporaryDirectory& dir, bool tied) {
  const auto file = dir.path() / (tied ? "tied.gguf" : "model.gguf");
  write_small_model(file, tied);
  return Engine::load(file, {.threads = 1, .lanes = 1, .cache_bytes = std::uint64_t{4} << 20, .kept_bytes = 0}).value();
}

void answer_with(Engine& engine, const std::filesystem::path& adapter) {
  const auto id = engine.add_adapter(adapter);
  if (!id) return;
  EngineRequest request;
  request.prompt = {257, 65, 66};
  request.sampling.max_tokens = 2;
  request.sampling.temperature = 0;
  request.adapter = *id;
  request.use_cache = false;
  const auto listener = std::make_shared<Listener>();
  if (engine.submit(std::move(request), listener)) listener->wait();
  engine.remove_adapter(*id);
}

}  // namespace

std::vector<std::string> seeds() {
  std::vector<std::string> out;
  TemporaryDirectory dir;
  for (const TensorType type : {TensorType::kF32, TensorType::kF16}) {
    GgufWriter writer;
    writer.set("general.type", GgufValue::string("adapter"));
    writer.set("general.architecture", GgufValue::string("llama"));
    writer.set("adapter.type", GgufValue::string("lora"));
    writer.set("adapter.lora.alpha", GgufValue::f32(2));
    const auto ones = [](std::size_t n) {
      return [n]() -> Result<std::vector<float>> { return std::vector<float>(n, 0.5F); };
    };
    writer.add("blk.0.attn_k.weight.lora_a", type, {kSmallWidth, 1}, ones(kSmallWidth));
    writer.add("blk.0.attn_k.weight.lora_b", type, {1, kSmallWidth / 2}, ones(kSmallWidth / 2));
    writer.write(dir.path() / "seed.gguf").value();
    out.push_back(read_file(dir.path() / "seed.gguf").value());
  }
  add_invented(out, 8, 80);
  return out;
}

}  // namespace tailor::fuzz

/// What is taken as an adapter answers, on a model with an output of its own and on one without. Inputs that begin with
/// "q" say how to make a file, the others are one.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tailor::fuzz;
  static tailor::TemporaryDirectory dir;
  static tailor::Engine engine = load(dir, false), tied = load(dir, true);
  static InputFile input;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.starts_with('q')) bytes = Invented(std::string_view(bytes).substr(1)).file(dir);
  const auto& path = input.put(bytes);
  answer_with(engine, path);
  answer_with(tied, path);
  return 0;
}
