#pragma once
/// The handlers of the API's routes. Each reads its request, and answers now or later through the call.

#include "serve/api_context.h"

namespace tailor {

void handle_chat_completions(const ApiServices& services, const ApiCallPtr& call);
void handle_completions(const ApiServices& services, const ApiCallPtr& call);
void handle_embeddings(const ApiServices& services, const ApiCallPtr& call);
void handle_rerank(const ApiServices& services, const ApiCallPtr& call);
void handle_classify(const ApiServices& services, const ApiCallPtr& call);
void handle_tokenize(const ApiServices& services, const ApiCallPtr& call);
void handle_detokenize(const ApiServices& services, const ApiCallPtr& call);
void handle_apply_template(const ApiServices& services, const ApiCallPtr& call);
void handle_tokenizer_info(const ApiServices& services, const ApiCallPtr& call);
void handle_models(const ApiServices& services, const ApiCallPtr& call);
void handle_model(const ApiServices& services, const ApiCallPtr& call);

void handle_livez(const ApiServices& services, const ApiCallPtr& call);
void handle_readyz(const ApiServices& services, const ApiCallPtr& call);
void handle_health(const ApiServices& services, const ApiCallPtr& call);
void handle_version(const ApiServices& services, const ApiCallPtr& call);
void handle_openapi(const ApiServices& services, const ApiCallPtr& call);

/// A label package's answer to a conversation: the label of the last user's message.
void answer_chat_with_label(const ApiServices& services, const ApiCallPtr& call, const ServedModelPtr& model,
                            const std::string& text, bool stream, bool include_usage);

}  // namespace tailor
