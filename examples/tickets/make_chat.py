"""Messages with labels as conversations whose answers have a strict form: a ticket, one JSON object with three keys.

    python3 examples/tickets/make_chat.py examples/estate-agency/inquiries.csv >chat.jsonl
    tailor tune chat.jsonl --config examples/tickets/tune.yaml --out runs/tickets
    tailor generate runs/tickets/package "The boiler is out again and we have a baby." --system "$(python3 examples/tickets/make_chat.py --system)"
"""
import csv
import json
import sys

SYSTEM = "You sort the mail of an estate agency. Answer with one JSON object: intent, desk, reply_within_hours."
DESKS = {  # intent -> who answers, and how soon
    "application_status": ("lettings", 24), "complaint": ("manager", 4), "contact_and_hours": ("reception", 8),
    "contract_termination": ("tenancies", 24), "deposit": ("accounts", 24), "document_request": ("tenancies", 48),
    "make_offer": ("sales", 4), "out_of_scope": ("none", 0), "price_and_fees": ("sales", 24), "property_details": ("lettings", 24),
    "property_search": ("lettings", 24), "rent_payment": ("accounts", 8), "repair_request": ("maintenance", 4),
    "sell_or_let_property": ("sales", 8), "viewing_appointment": ("viewings", 8), "viewing_change": ("viewings", 2)}


def ticket(intent):
    desk, hours = DESKS[intent]
    return json.dumps({"intent": intent, "desk": desk, "reply_within_hours": hours})


def main():
    if sys.argv[1:] == ["--system"]:
        print(SYSTEM)
        return
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            turns = [("system", SYSTEM), ("user", row["message"]), ("assistant", ticket(row["intent"]))]
            print(json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]}, ensure_ascii=False))


if __name__ == "__main__":
    main()
