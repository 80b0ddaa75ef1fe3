#pragma once
/// One request of a batch on its way through the handler that answers it over HTTP.

#include <functional>
#include <memory>
#include <string>

#include "serve/api_context.h"
#include "serve/api_routes.h"

namespace tailor {

struct BatchReply {
  int status = 0;
  std::string body;
  int retry_after_s = 0;  // told by the answer; 0: nothing
  bool hopeless = false;  // a refusal that no waiting helps against
};

/// Threads: any. What it was asked with is alive until the answer.
class BatchCall {
 public:
  virtual ~BatchCall() = default;
  /// The client has gone, so to speak: the work ends within one step. An answer may come all the same.
  virtual void cancel() = 0;
  virtual const std::string& request_id() const = 0;
};

struct BatchCallOptions {
  const ApiServices* services = nullptr;
  std::shared_ptr<const RequestObservers> observers;
  const ApiRoute* route = nullptr;
  std::string batch_id;
};

/// Runs the route's handler here; `done` hears of the answer once, on any thread (also this one), and must not block.
std::shared_ptr<BatchCall> ask(const BatchCallOptions& options, std::string body, Principal principal,
                               std::function<void(BatchReply)> done);

}  // namespace tailor
