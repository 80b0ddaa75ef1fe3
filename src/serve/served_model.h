#pragma once
/// What the API can be asked for by name: base models, adapters, soft prompts and packages, and what computes them.

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/json.h"
#include "fit/package.h"
#include "fit/text_model.h"
#include "infer/constraint.h"
#include "infer/embedder.h"
#include "infer/engine.h"
#include "serve/package_backends.h"
#include "serve/tool_calls.h"

namespace tailor {

/// One decoder in memory, shared by the base model and its adapters.
struct EngineHost {
  std::filesystem::path gguf;
  std::string sha256;
  Engine engine;
  ConstraintCompiler constraints;  // formats that answers must follow, compiled for this vocabulary
  /// Requests that somebody waits for, of all its models; those of batches are none.
  std::shared_ptr<std::atomic<int>> live = std::make_shared<std::atomic<int>>(0);
};

/// One of EngineHost::live, to its end.
class LiveRequest {
 public:
  explicit LiveRequest(std::shared_ptr<std::atomic<int>> count) : count_(std::move(count)) { ++*count_; }
  LiveRequest(const LiveRequest&) = delete;
  LiveRequest& operator=(const LiveRequest&) = delete;
  ~LiveRequest() { --*count_; }

 private:
  std::shared_ptr<std::atomic<int>> count_;
};

/// Answers with text. Immutable; its adapter goes with it.
class TextBackend {
 public:
  /// `adapter`: a GGUF adapter, a soft prompt (.safetensors), or empty: the model itself.
  static Result<std::shared_ptr<const TextBackend>> make(std::shared_ptr<EngineHost> host,
                                                         const std::filesystem::path& adapter,
                                                         const TextSettings& settings);
  TextBackend(const TextBackend&) = delete;
  TextBackend& operator=(const TextBackend&) = delete;
  ~TextBackend();

  const std::shared_ptr<EngineHost>& host() const { return host_; }
  ConstraintCompiler& constraints() const { return host_->constraints; }
  Engine& engine() const { return host_->engine; }
  AdapterId adapter() const { return adapter_; }
  const ChatEncoder& encoder() const { return *encoder_; }
  const Tokenizer& tokenizer() const { return host_->engine.tokenizer(); }
  const TextSettings& settings() const { return settings_; }
  const std::string& note() const { return note_; }
  const std::optional<ToolFormat>& tool_format() const { return tool_format_; }  // none: it calls no tools
  int max_context() const { return host_->engine.max_context() - host_->engine.soft_tokens(adapter_); }

 private:
  explicit TextBackend(std::shared_ptr<EngineHost> host) : host_(std::move(host)) {}
  std::shared_ptr<EngineHost> host_;
  AdapterId adapter_ = 0;
  TextSettings settings_;
  std::unique_ptr<ChatEncoder> encoder_;
  std::optional<ToolFormat> tool_format_;
  std::string note_;
};

/// Texts to vectors. Loaded when it is first asked for.
class EmbeddingBackend {
 public:
  /// `available_bytes`: of memory that it may take; 0: what is free when it is loaded.
  EmbeddingBackend(std::filesystem::path gguf, std::shared_ptr<ComputeShare> share, BatcherOptions options = {},
                   std::uint64_t available_bytes = 0)
      : gguf_(std::move(gguf)),
        share_(std::move(share)),
        options_(std::move(options)),
        available_bytes_(available_bytes) {}
  /// The batcher, and how long vectors and texts are.
  struct Ready {
    TextBatcher* batcher;
    const Tokenizer* tokenizer;
    int dim, max_tokens;
  };
  Result<Ready> get();
  std::size_t waiting() const { return load().items; }  ///< texts
  BatcherLoad load() const;                             ///< never loads it

 private:
  std::filesystem::path gguf_;
  std::shared_ptr<ComputeShare> share_;
  BatcherOptions options_;
  std::uint64_t available_bytes_;
  mutable std::mutex mutex_;  // held while it loads
  std::unique_ptr<Embedder> embedder_;
  std::unique_ptr<TextBatcher> batcher_;
};

class ModelProvider;  // model_router.h

/// Whose view of the models it is: a key sees those of nobody in particular, and its own.
struct ModelViewer {
  std::string key_id;
  bool sees_all = false;  // there are no keys, or its key administers
};

/// Immutable. A request keeps the one it began with, whatever is loaded or dropped meanwhile.
struct ServedModel {
  std::string id;
  std::string owner = {};                         // id of the key whose job made it; empty: it is there for all
  std::string parent;                             // of an adapter: the base model's id
  std::int64_t created = 0;                       // Unix seconds
  std::shared_ptr<const TextBackend> text;        // null: answers with no text of its own
  std::shared_ptr<const LabelBackend> labels;     // null: no label package
  std::shared_ptr<const TagBackend> tags;         // null: gives words no tags
  std::shared_ptr<const SpanBackend> spans;       // null: answers no questions from texts
  std::shared_ptr<EmbeddingBackend> embedding;    // null: no vectors
  std::shared_ptr<const ModelProvider> provider;  // answers all that it is asked; null: it is computed here
  std::string fingerprint;                        // of weights and version, as system_fingerprint
  Json meta = Json::object();                     // shown by /v1/models

  Json describe() const;             // as /v1/models lists it
  BatcherLoad batcher_load() const;  // of all but its engine
  bool visible_to(const ModelViewer& viewer) const {
    return owner.empty() || viewer.sees_all || owner == viewer.key_id;
  }
  bool is_package() const { return labels || tags || spans; }  // answers in one piece, without a language model's text
};
using ServedModelPtr = std::shared_ptr<const ServedModel>;

/// The models by name. Threads: any.
///
/// The last to let go of a model may be one of its own threads, which cannot end itself; so models are ended by a
/// thread of the registry.
class ModelRegistry {
 public:
  ModelRegistry();
  ModelRegistry(const ModelRegistry&) = delete;
  ModelRegistry& operator=(const ModelRegistry&) = delete;
  ~ModelRegistry();  // waits until no request has a model any more

  /// Takes the place of one of this name; requests that run go on with the old one.
  ServedModelPtr put(std::unique_ptr<ServedModel> model);
  bool remove(const std::string& id);
  /// An empty name: the first model. Null: unknown. For the server itself: whoever asks.
  ServedModelPtr find(const std::string& id) const;
  /// The same among those that `viewer` sees: what a request is answered from.
  ServedModelPtr find(const std::string& id, const ModelViewer& viewer) const;
  std::vector<ServedModelPtr> list() const;  // in the order in which they were put first
  std::uint64_t version() const;             // rises with every change
  /// While one lives, a model is being loaded to be put here.
  class Loading {
   public:
    explicit Loading(ModelRegistry& models) : models_(models) { ++models_.loading_; }
    Loading(const Loading&) = delete;
    Loading& operator=(const Loading&) = delete;
    ~Loading() { --models_.loading_; }

   private:
    ModelRegistry& models_;
  };
  int loading() const { return loading_; }

  /// {"object": "list", "data": […]} of all that `viewer` sees, written once for each change.
  std::shared_ptr<const std::string> listing(const ModelViewer& viewer) const;

 private:
  struct Graveyard;
  mutable std::mutex mutex_;
  std::vector<ServedModelPtr> models_;
  std::uint64_t version_ = 0;
  std::atomic<int> loading_{0};
  mutable std::map<std::string, std::shared_ptr<const std::string>> listings_;  // written since the last change
  std::shared_ptr<Graveyard> graveyard_;
  std::thread undertaker_;
};

struct ModelLoadOptions {
  int threads = 0;
  std::uint64_t cache_bytes = 0;       // of keys and values, as asked for; 0: what there is by default
  std::shared_ptr<CacheBudget> cache;  // so many, for all models that are loaded with it; null: each has its own
  int max_context = 0;
  QueueLimits queue;
  std::shared_ptr<ComputeShare> share;
  bool nearest_rows = true;           // of packages that hold training rows, these may be asked for
  std::uint64_t available_bytes = 0;  // of memory that a model may take; 0: what is free when it is loaded

  std::uint64_t available() const;
};

/// A base model by catalogue name or path. `id` empty: its own.
Result<std::unique_ptr<ServedModel>> serve_base_model(const std::string& model, const std::string& id,
                                                      const ModelLoadOptions& options);
/// An adapter of a model that is served: a GGUF file, a soft prompt, or a directory that holds one.
Result<std::unique_ptr<ServedModel>> serve_adapter(const ServedModel& base, const std::filesystem::path& adapter,
                                                   const std::string& id);
/// A package that `fit` or `tune` made.
Result<std::unique_ptr<ServedModel>> serve_package(const std::filesystem::path& package, const std::string& id,
                                                   const ModelLoadOptions& options);

}  // namespace tailor
