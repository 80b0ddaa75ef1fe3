#pragma once
/// The handlers of the API's routes. Each reads its request, and answers now or later through the call.

#include "infer/chat_template.h"
#include "serve/api_context.h"
#include "store/file_store.h"
#include "store/page.h"

namespace tailor {

void handle_chat_completions(const ApiServices& services, const ApiCallPtr& call);
void handle_completions(const ApiServices& services, const ApiCallPtr& call);
void handle_embeddings(const ApiServices& services, const ApiCallPtr& call);
void handle_rerank(const ApiServices& services, const ApiCallPtr& call);
void handle_classify(const ApiServices& services, const ApiCallPtr& call);
void handle_tag(const ApiServices& services, const ApiCallPtr& call);
void handle_extract(const ApiServices& services, const ApiCallPtr& call);
void handle_tokenize(const ApiServices& services, const ApiCallPtr& call);
void handle_detokenize(const ApiServices& services, const ApiCallPtr& call);
void handle_apply_template(const ApiServices& services, const ApiCallPtr& call);
void handle_tokenizer_info(const ApiServices& services, const ApiCallPtr& call);
void handle_models(const ApiServices& services, const ApiCallPtr& call);
void handle_model(const ApiServices& services, const ApiCallPtr& call);
void handle_delete_model(const ApiServices& services, const ApiCallPtr& call);

void handle_admin_load_model(const ApiServices& services, const ApiCallPtr& call);
void handle_admin_remove_model(const ApiServices& services, const ApiCallPtr& call);
void handle_load_lora_adapter(const ApiServices& services, const ApiCallPtr& call);
void handle_unload_lora_adapter(const ApiServices& services, const ApiCallPtr& call);

void handle_livez(const ApiServices& services, const ApiCallPtr& call);
void handle_readyz(const ApiServices& services, const ApiCallPtr& call);
void handle_health(const ApiServices& services, const ApiCallPtr& call);
void handle_version(const ApiServices& services, const ApiCallPtr& call);
void handle_metrics(const ApiServices& services, const ApiCallPtr& call);

void handle_upload(const ApiServices& services, const ApiCallPtr& call);
void handle_files(const ApiServices& services, const ApiCallPtr& call);
void handle_file(const ApiServices& services, const ApiCallPtr& call);
void handle_delete_file(const ApiServices& services, const ApiCallPtr& call);
void handle_file_content(const ApiServices& services, const ApiCallPtr& call);
void handle_create_job(const ApiServices& services, const ApiCallPtr& call);
void handle_jobs(const ApiServices& services, const ApiCallPtr& call);
void handle_job(const ApiServices& services, const ApiCallPtr& call);
void handle_cancel_job(const ApiServices& services, const ApiCallPtr& call);
void handle_pause_job(const ApiServices& services, const ApiCallPtr& call);
void handle_resume_job(const ApiServices& services, const ApiCallPtr& call);
void handle_job_events(const ApiServices& services, const ApiCallPtr& call);
void handle_job_checkpoints(const ApiServices& services, const ApiCallPtr& call);
void handle_create_batch(const ApiServices& services, const ApiCallPtr& call);
void handle_batches(const ApiServices& services, const ApiCallPtr& call);
void handle_batch(const ApiServices& services, const ApiCallPtr& call);
void handle_cancel_batch(const ApiServices& services, const ApiCallPtr& call);

/// Takes the body of handle_upload(). An error: it is no form, or there is no room. There is a store.
ApiResult<std::unique_ptr<HttpBodySink>> make_upload(const ApiServices& services, const HttpHead& head,
                                                     const Principal& principal);

/// A client's own; without keys everybody's. Nothing: there is no such file for it.
Result<std::optional<FileRecord>> find_own_file(const ApiServices& services, const Principal& principal,
                                                const std::string& id);

/// "after", "limit" and "order" of a list.
ApiResult<PageQuery> page_query(const ApiCall& call, std::int64_t most);
void handle_openapi(const ApiServices& services, const ApiCallPtr& call);

/// A package's answer to a conversation: the label or the entities (as JSON) of the last user's message, or, where the
/// package answers questions, what the earlier messages say about the last one. `in`: the request.
ApiFailure answer_chat_by_package(const ApiServices& services, const ApiCallPtr& call, const ServedModelPtr& model,
                                  const std::vector<ChatMessage>& messages, FieldReader& in);

}  // namespace tailor
