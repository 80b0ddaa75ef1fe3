#include "infer/llama_context.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "infer/ggml_device.h"
#include "infer/packed_weights.h"
#include "model/cell_bytes.h"
#include "model/gguf_file.h"

namespace tailor {
namespace {

/// llama.cpp packs some formats for its own kernels when it loads them; where ours are faster, weights must lie as they
/// do in the file. Its K-quants and others stay with it, and with them what stands beside them.
bool ours_are_faster(const GgufFile& file) {
  if (!packed_products()) return false;
  std::uint64_t ours = 0, others = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    const bool known =
        tensor.type == TensorType::kQ4_0 || tensor.type == TensorType::kQ4_1 || tensor.type == TensorType::kQ8_0;
    const bool plain =
        tensor.type == TensorType::kF32 || tensor.type == TensorType::kF16 || tensor.type == TensorType::kBF16;
    if (!plain) (known ? ours : others) += tensor.bytes.size();
  }
  return ours > 4 * others;
}

}  // namespace

Result<std::shared_ptr<const LoadedModel>> LoadedModel::load(const std::filesystem::path& gguf,
                                                             const std::filesystem::path& adapter) {
  auto loaded = std::make_shared<LoadedModel>();
  const auto repack = [&](const GgufFile& file) {
    loaded->adapter_base_ = AdapterBase::of(file);
    loaded->cell_bytes_ = tailor::cell_bytes(file);
    loaded->own_products_ = ours_are_faster(file);
    return !loaded->own_products_;
  };
  TAILOR_TRY(loaded->model_, load_llama_model(gguf, {.repack = repack}));
  TAILOR_TRY(loaded->tokenizer_, Tokenizer::of(loaded->model_.get()));
  loaded->name_ = gguf.filename().string();
  loaded->file_ = gguf;
  const std::string scaling = loaded->metadata("general.architecture") + ".rope.scaling.";
  if (const std::string original = loaded->metadata(scaling + "original_context_length"); !original.empty()) {
    const int context = std::atoi(original.c_str());
    const bool two_sets =
        loaded->metadata(scaling + "type") != "yarn" && context < llama_model_n_ctx_train(loaded->model_.get());
    if (two_sets) loaded->short_context_ = std::max(0, context);
  }
  if (!adapter.empty()) {
    TAILOR_TRY(loaded->adapter_, loaded->load_adapter(adapter));
  }
  return std::shared_ptr<const LoadedModel>(std::move(loaded));
}

LoadedModel::~LoadedModel() {
  forget_packed_weights();  // before another model comes to lie at this one's address
}

Result<llama_adapter_lora*> LoadedModel::load_adapter(const std::filesystem::path& adapter) const {
  {
    TAILOR_TRY(const GgufFile file, GgufFile::open(adapter));
    TAILOR_CHECK(check_llama_adapter(file, adapter_base_));
  }
  const std::lock_guard lock(adapter_list_);
  if (llama_adapter_lora* loaded = llama_adapter_lora_init(model_.get(), adapter.c_str())) return loaded;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: cannot be used as an adapter of {}", adapter.string(), name_),
               "an adapter fits only the model that it was trained on; give a GGUF adapter of this model"};
}

void LoadedModel::drop_adapter(llama_adapter_lora* adapter) const {
  adapter_list_.leave([adapter] { llama_adapter_lora_free(adapter); });
}

std::string model_metadata(const llama_model* model, const std::string& key) {
  char value[128];
  return llama_model_meta_val_str(model, key.c_str(), value, sizeof value) < 0 ? std::string() : std::string(value);
}

std::string LoadedModel::metadata(const std::string& key) const {
  return model_metadata(model_.get(), key);
}

bool LoadedModel::is_encoder() const {
  return metadata(metadata("general.architecture") + ".attention.causal") == "false";
}

Status LoadedModel::require_decoder(std::string_view what) const {
  const llama_model* model = model_.get();
  const bool decoder = !is_encoder() && llama_model_has_decoder(model) && !llama_model_has_encoder(model) &&
                       !llama_model_is_recurrent(model) && !llama_model_is_hybrid(model);
  if (decoder) return {};
  return Error{ErrorCode::kUnavailable, fmt::format("{}: {} with decoder-only transformers alone", name_, what),
               "use a model of the llama family"};
}

std::string LoadedModel::chat_template() const {
  const char* text = llama_model_chat_template(model_.get(), nullptr);
  return text == nullptr ? std::string() : std::string(text);
}

std::vector<std::int32_t> LoadedModel::end_tokens() const {
  std::vector<std::int32_t> ends;
  for (std::int32_t t = 0; t < vocabulary(); ++t) {
    if (tokenizer_->ends_generation(t)) ends.push_back(t);
  }
  return ends;
}

Result<LlamaContextPtr> LoadedModel::make_context(const llama_context_params& params) const {
  use_own_kernels();
  LlamaContextPtr context;
  {
    const std::lock_guard lock(adapter_list_);
    context.reset(llama_init_from_model(model_.get(), params));
  }
  if (context == nullptr) {
    return Error{ErrorCode::kOutOfMemory,
                 fmt::format("{}: llama.cpp cannot make a context of {} tokens", name_, params.n_ctx),
                 "use a shorter context, fewer threads or a smaller model"};
  }
  if (adapter_ != nullptr) {
    llama_adapter_lora* adapter = adapter_;
    float scale = 1.0f;
    if (llama_set_adapters_lora(context.get(), &adapter, 1, &scale) != 0) {
      return Error{ErrorCode::kInternal, fmt::format("{}: the adapter cannot be applied", name_), ""};
    }
  }
  return context;
}

Status LoadedModel::touch_weights() const {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = params.n_batch = params.n_ubatch = 32;
  params.n_threads = params.n_threads_batch = 1;
  params.no_perf = true;
  TAILOR_TRY(const LlamaContextPtr context, make_context(params));
  DecodeBatch batch;
  batch.add(0, 0, {0, 1}, true);
  return batch.decode(context.get(), name_);
}

int DecodeBatch::add(std::int32_t token, std::int32_t position, SequenceRange sequences, bool output) {
  tokens_.push_back(token);
  positions_.push_back(position);
  ranges_.push_back(sequences);
  output_.push_back(output ? 1 : 0);
  outputs_ += output ? 1 : 0;
  return size() - 1;
}

void DecodeBatch::clear() {
  tokens_.clear();
  positions_.clear();
  ranges_.clear();
  output_.clear();
  outputs_ = 0;
}

Status DecodeBatch::decode(llama_context* context, const std::string& model_name) {
  if (empty()) return {};
  const std::size_t n = tokens_.size();

  // Encoders have no memory: their sequences start at 0 in every batch.
  llama_memory_t memory = llama_get_memory(context);
  std::vector<std::int32_t> next(kMaxSequences, -1);
  std::size_t total = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (ranges_[i].first < 0 || ranges_[i].first >= ranges_[i].last || ranges_[i].last > kMaxSequences) {
      return Error{ErrorCode::kInternal, "a token was put into a sequence that does not exist", ""};
    }
    for (std::int32_t s = ranges_[i].first; s < ranges_[i].last; ++s) {
      std::int32_t& expected = next[static_cast<std::size_t>(s)];
      if (expected < 0) expected = memory == nullptr ? 0 : llama_memory_seq_pos_max(memory, s) + 1;
      if (positions_[i] != expected) {
        return Error{ErrorCode::kInternal,
                     fmt::format("token {} of a batch stands at position {} of sequence {}, expected {}", i,
                                 positions_[i], s, expected),
                     ""};
      }
      ++expected;
    }
    total += static_cast<std::size_t>(ranges_[i].last - ranges_[i].first);
  }

  sequence_ids_.clear();
  sequence_ids_.reserve(total);  // pointers below need it not to move
  sequence_pointers_.clear();
  sequence_counts_.clear();
  for (std::size_t i = 0; i < n; ++i) {
    sequence_pointers_.push_back(sequence_ids_.data() + sequence_ids_.size());
    sequence_counts_.push_back(ranges_[i].last - ranges_[i].first);
    for (std::int32_t s = ranges_[i].first; s < ranges_[i].last; ++s) sequence_ids_.push_back(s);
  }
  llama_batch batch{};
  batch.n_tokens = static_cast<std::int32_t>(n);
  batch.token = tokens_.data();
  batch.pos = positions_.data();
  batch.n_seq_id = sequence_counts_.data();
  batch.seq_id = sequence_pointers_.data();
  batch.logits = output_.data();
  const int code = llama_decode(context, batch);
  if (code == 0) return {};
  if (code == 1) {
    return Error{ErrorCode::kInternal, fmt::format("{}: no room for {} tokens in the key-value cache", model_name, n),
                 ""};
  }
  if (code == -2) {
    return Error{ErrorCode::kOutOfMemory, fmt::format("{}: out of memory in a batch of {} tokens", model_name, n),
                 "use a shorter context or fewer threads"};
  }
  return Error{ErrorCode::kInternal,
               fmt::format("{}: llama.cpp failed on a batch of {} tokens (code {})", model_name, n, code), ""};
}

}  // namespace tailor
