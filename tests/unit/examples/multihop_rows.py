"""A row of each published set of multi-hop questions, in its format, with shortened texts."""

QUESTION = "Which magazine was started first Arthur's Magazine or First for Women?"

HOTPOT = {
    "_id": "5a7a06935542990198eaf050",
    "question": QUESTION,
    "answer": "Arthur's Magazine",
    "type": "comparison",
    "level": "medium",
    "supporting_facts": [["Arthur's Magazine", 0], ["First for Women", 0]],
    "context": [
        ["Arthur's Magazine", ["It was a periodical.", " It merged."]],
        ["First for Women", ["A magazine."]],
    ],
}

HOTPOT_PARQUET = {
    "id": HOTPOT["_id"],
    "question": QUESTION,
    "answer": "Arthur's Magazine",
    "type": "comparison",
    "level": "medium",
    "supporting_facts": {"title": ["Arthur's Magazine", "First for Women"], "sent_id": [0, 0]},
    "context": {
        "title": ["Arthur's Magazine", "First for Women"],
        "sentences": [["It was a periodical.", " It merged."], ["A magazine."]],
    },
}

TWO_WIKI = {
    "_id": "8813f87c0bdd11eba7f7acde48001122",
    "type": "compositional",
    "question": "Who is the mother of the director of film Polish-Russian War (Film)?",
    "context": [
        ["Xawery Żuławski", ["He is a director.", "He was born."]],
        ["Polish-Russian War (film)", ["A film."]],
    ],
    "supporting_facts": [["Polish-Russian War (film)", 1], ["Xawery Żuławski", 2]],
    "evidences": [["Polish-Russian War", "director", "Xawery Żuławski"]],
    "answer": "Małgorzata Braunek",
}

TWO_WIKI_TEXTS = {
    **TWO_WIKI,
    "context": '[["Xawery Żuławski", ["He is a director.", "He was born."]], ["Film", ["A film."]]]',
    "supporting_facts": '[["Film", 1]]',
    "evidences": '[["Film", "director", "Xawery Żuławski"]]',
}

MUSIQUE = {
    "id": "2hop__482757_12019",
    "paragraphs": [
        {"idx": 0, "title": "Steel City", "paragraph_text": "A song.", "is_supporting": False},
        {"idx": 1, "title": "Boston", "paragraph_text": "A city.", "is_supporting": True},
    ],
    "question": "What city is the person who broadened the doctrine from?",
    "question_decomposition": [
        {"id": 482757, "question": "x >> y", "answer": "Z", "paragraph_support_idx": 1}
    ],
    "answer": "Boston, Massachusetts",
    "answer_aliases": ["Boston"],
    "answerable": True,
}

BAMBOOGLE = {
    "Question": "Who was president of the United States in the year that superconductivity?",
    "Answer": "Richard Nixon",
}

SEARCH_R1 = {
    "id": "train_0",
    "question": "total number of death row inmates in the us?",
    "golden_answers": ["December 1972", "14 December 1972 UTC", "December 1972"],
    "data_source": "nq",
    "prompt": [
        {
            "content": "Answer the given question. You must conduct reasoning inside <think>. "
            "For example, <answer> Beijing </answer>. Question: total number of death row inmates "
            "in the us?\n",
            "role": "user",
        }
    ],
    "ability": "fact-reasoning",
    "reward_model": {"ground_truth": {"target": ["December 1972"]}, "style": "rule"},
    "extra_info": {"index": 0, "split": "train"},
    "metadata": None,
}

FLASHRAG = {
    "id": "dev_3",
    "question": "What government position was held by the woman who portrayed Corliss Archer?",
    "golden_answers": ["Chief of Protocol"],
    "metadata": {"type": "bridge", "level": "hard"},
}
