"""The frames of what people ask: a grammar a pattern, for training and, in other sentences, held out.

A held-out frame shares no run of four words with a trained one; most of its words stand in some trained frame, since a
model that begins with random weights can know no others.

Templates of a grammar stand on lines or between slashes, [this|that] are alternatives. Slots: {a} and {b} names in
quotes, {list} a list, {word} and {key} a number's or link's word, {thing}, {things}, {n}, {limit}, {verb}, {then} and
{other} deeds: a verb with its number. No text has an apostrophe: it could be the mark of a name.
"""

from __future__ import annotations

import itertools
import re


def expanded(grammar: str) -> tuple[str, ...]:
    """All texts of a grammar, template by template."""
    made: list[str] = []
    for template in re.split(r" / |\n", grammar.strip()):
        parts = [part.split("|") for part in re.split(r"[\[\]]", template.strip())]
        made += map("".join, itertools.product(*parts))
    return tuple(made)


_TRAINED = {
    "ask": """
        What is the {word} [of|for] {list}? / I am [looking for|interested in|after] the {word} of {list}.
        For {list}, [what {word} is written down?|tell me the {word}.|say what the {word} is.] / {word} of {list}?
        The {word} of {list} [is what I need|has to be known|should be reported].
        {list}: [what {word} is stored there?|I need the {word}.|{word} wanted.]
        When you have found the {word} of {list}, [tell me|say it]. / [Tell|Give|Read|Show] me the {word} of {list}.
        [My question|This] is about {list}. What is the {word}? / I [want|need|have] to know the {word} of {list}.
        [Which|What] {word} [has|is written down for] {list}? / [Check|Take|Look at] {list}: what is the {word}?
        Can you [tell me|see] [what|which] {word} {list} has? / [Look up|Find|Get|Report] the {word} of {list}.
        [Wanted|Needed|Asked for]: {word} of {list}. / Find out [what|which] {word} {list} has.
        Do you [know|have] the {word} of {list}?
        Someone forgot the {word} that {list} [has|shows]. Fetch it.
        [Nobody|Somebody] knows the {word} of {list}. Do you?
        [Fill in|Complete] my list: {word} of {list}. / [Fetch|Quote|Repeat] the {word} kept for {list}.
        A colleague needs {word} figures: {list}. / [In terms of|With regard to|Concerning] {word}, what about {list}?
        Where do {list} stand in {word}? / I do not remember which {word} belongs to {list}. [Remind|Enlighten] me.
        [Dig|Bring] out the {word} of {list}, [provided|if] it is there. / What {word} stands beside {list}?
        If any {word} can be seen for {list}, [which is it|namely what]?""",
    "trace": """
        Follow the {word} from {a} [until there is none|to the end|as far as it goes]. Which {thing} is last?
        If you [follow|take] the {word} of {a}, then its {word}, and so on, which {thing} is the last?
        As long as there is a {word}, move on to it. Start: {a}. [Where do you end|What is the end]?
        {a}: follow {word} until nothing [comes|is left], then say [the name|which {thing} it is].
        From {a}, take the {word} each time until none is left. [What|Which] is the last {thing}?
        {a} has a {word}, which has a {word} too, and so on. [Which|What] is the final {thing}?
        Find the [end|last {thing}] of the chain: {a}, its {word}, the {word} of that, and on.
        The last {thing} [behind|after] {a} is wanted, [going by|following] {word} each time.
        Start at {a} and go to its {word} again and again. Where [does it end|do you stop]?
        Until there is no {word} any more, go on from {a}. [Which {thing}|What] is it then?
        Could you go through every {word} from {a} on and [tell|give] me the last {thing}?
        Begin [with|at] {a}. Go on to the {word} until it stops. Name the last {thing}.
        My chain [starts|begins] at {a} and is linked by {word}. What is at its end?
        Which {thing} do you [reach|come to] from {a} by always taking the {word}?
        I [want|need|would like] to know where the {word} chain of {a} ends.
        Keep [following|taking] {word} from {a}. Which {thing} has none?
        [Trace|Track] {word} starting from {a}. What comes last? / [End|Last {thing}] of the {word} chain from {a}?
        Hop along {word} from {a}. When you cannot hop any more, who is [it|there]?
        {a} leads to its {word}, that one [leads|points] to another. Who sits at the bottom?
        Walk from {a} over every {word} and never pause. [At whom|Where] do you finally arrive?
        Run down the line behind {a}, {word} after {word}. [Whom|What] do you meet at its tip?
        Leave {a} by its {word}, leave that by its own, till it breaks off. [Quote|Name] whichever is last.
        Exhaust the {word} of {a}, then of the next, to the far end. Who [cannot go on|opens no further one]?
        [Ultimately|Finally], whom does {a} arrive at by {word} hops?
        Do not cease to hop by {word} from {a}. Last {thing}?""",
    "branch": """
        If the {word} of {a} is [below|under|less than] {limit}, {then}, else {other}.
        Choose: {then} or {other}. The first [is right|applies] if {a} has a {word} below {limit}, else the second.
        First read the {word} of {a}. If it [is less than|lies below|is under] {limit}, {then}, and if not, {other}.
        The {word} of {a} [has to be checked|matters here]. When it is under {limit}, {then}; when not, {other}.
        Do one of two things: {then}, [if|when] the {word} of {a} is below {limit}, or {other}, if it is not.
        There are two cases for {a}. With a {word} [less than|below] {limit} {then}, with any other {other}.
        See [what|which] {word} {a} has. Less than {limit} means {then}; anything else means {other}.
        Is the {word} of {a} [smaller|less|lower] than {limit}? Then {then}. If it is not, {other}.
        I want you to {then} if {a} has a {word} under {limit}, and to {other} if [not|it has not].
        {other} if the {word} of {a} is {limit} or [more|above], but {then} if it is [less|below].
        Could you {then} in case {a} has a {word} below {limit}, [and|but] otherwise {other}?
        Only if {a} has less than {limit} {word} {then}. If it has more or as much, {other}.
        Check {a}: when its {word} is [less than|below] {limit}, {then}; if not, {other}.
        When {a} has a {word} [below|under] {limit}, {then}. In the other case {other}.
        Depending on the {word} of {a}: under {limit} {then}, from {limit} on {other}.
        Look at the {word} of {a}. [Below|Under] {limit}: {then}. Otherwise: {other}.
        {a} decides. {word} [below|under] {limit}: {then}. {limit} or more: {other}.
        {then} if the {word} of {a} is [under|below] {limit}; otherwise {other}.
        [Task|To do]: {word} of {a} under {limit} -> {then}; else -> {other}.
        [Consult|Measure] the {word} of {a}. Beneath {limit} it makes you {then}, beyond that {other}.
        Our rule: {a} shows a {word} short of {limit}, you {then}; in the opposite case {other}.
        The policy hangs on {a}: does its {word} fall below {limit}, {then}; unless it does so, {other}.
        {then}, provided {a} has a {word} beneath {limit}. Failing that, {other}.
        Once the {word} of {a} drops under {limit}, {then}. Given any other result, {other}.
        Hold {limit} against the {word} of {a}. [Is|If] the {word} beneath it, {then}; contrary to that, {other}.
        {a} not reaching {limit} in {word} leads you to {then}; reaching it, to {other}.
        Should the {word} of {a} sink below {limit}, {then}. Having attained {limit}, {other}.""",
    "least": """
        Which has the [lowest|smallest|least] {word}: {list}? / {list}: which one has the [least|lowest] {word}?
        The {thing} with the [least|smallest] {word} is wanted. You can choose from {list}.
        Here are some {things}: {list}. [Tell me|Name] the one with the smallest {word}.
        I am [looking for|after] the {thing} that has the least {word}. My list: {list}.
        [Read|Check] the {word} of each: {list}. Then say which is the lowest.
        One of {list} has less {word} than the others. Which [is it|one]?
        Compare the {word} of {list}. Which is [lowest|smallest|least]?
        When it comes to {word}, which of {list} is [smallest|lowest]?
        Find the {thing} with the [lowest|least] {word} among {list}. / [Lowest|Smallest|Least] {word} among {list}?
        Look at the {word} of {list} and [name|tell me] the smallest.
        If you compare {list}, which one [comes|is] lowest in {word}?
        Pick from {list} the {thing} whose {word} is [lowest|least].
        Can you [see|tell me] which of {list} has the lowest {word}?
        I [need|want] the {thing} of lowest {word} out of {list}. / Of {list}, which has the [least|lowest] {word}?
        Name one of {list}; no other [may|must] have less {word}. / Where is the {word} [lowest|smallest]: {list}?
        Which {thing} has the [smallest|lowest] {word}: {list}?
        Sort by {word} and [quote|name] the bottom: {list}. / Rank {list}. Who is the head, {word} ascending?
        Everybody of {list} has some {word}. Whoever has the minimum is [the winner|wanted]. Who?
        Who among the candidates {list} undercuts the others in {word}? / Identify the minimum of {word}: {list}.
        Nobody may score less {word} than the winner. [Between|Amid] {list}, who might win?
        Order {list} by their {word}. I care for whichever [member|candidate] shows least.
        Taken by {word}, someone of {list} manages the minimum. Certain who?
        Whoever scores lowest in {word} wins: {list}.""",
    "orders": """
        {verb} {list}. / [What I want is|The job is|Your work is] to {verb} {list}. / {list}: {verb} [all|that].
        I [want|need|ask|would like] you to {verb} {list}. / {verb} [the following|these|all of these]: {list}.
        It is [time|necessary|important] to {verb} {list}. / Are you able to {verb} {list}? Then [do it|do so].
        If you [can|have time|are ready], {verb} {list}. / I hope that you can {verb} {list} [for me|now].
        [Do this|Do it now|A small job]: {verb} {list}. / Here is what you [should|must] {verb}: {list}.
        [To do|Your task|My wish|Job]: {verb} {list}. / [There|Here] is something to {verb}: {list}.
        [Could|Can|Will|Would] you {verb} {list}? / [Make sure|Take care] to {verb} {list}. / Let us {verb} {list}.
        One [thing|more job]: {verb} {list}. / My [list|note] says {verb} {list}. / [Start|Begin] and {verb} {list}.
        [We|You] have to {verb} {list}.
        [Be so kind,|Hurry and|Be good and|Go on and] {verb} {list}. / You ought to {verb} {list}.
        [Nothing but this|All]: {verb} {list}. / I am asked to have somebody {verb} {list}.
        It pleases me if you {verb} {list}.
        You are [here|ready] to {verb} {list}, as expected. / It was supposed that you {verb} {list}.
        Sorry for the trouble: {verb} {list}.
        Somebody requested that you {verb} {list}. / It helps us when you {verb} {list}.
        See that you {verb} {list}.""",
    "search": """
        Of the {things} with {key} {n}, which has the [lowest|least|smallest] {word}?
        {things} are to be compared by {word}, [those|but only those] with {key} {n}. Which has the smallest?
        The [smallest|lowest] {word} is wanted, among {things} with {n} as {key}. Which {thing} has it?
        Search for {key} {n} and tell me which {thing} there has the [lowest|smallest] {word}.
        I [want|need] the {thing} of lowest {word}, but only from {things} whose {key} is {n}.
        Find all {things} whose {key} is {n}. Which of them has the [smallest|lowest] {word}?
        [Look up|Get] all {things} at {key} {n} and compare their {word}. Which is lowest?
        Among the {things} of {key} {n}, name the one with the [smallest|least] {word}.
        I look for a {thing}: {key} must be {n}, and {word} as [low|small] as possible.
        List {things} by {key} {n}, then [pick|choose] the one with the least {word}.
        Out of every {thing} at {key} {n} choose the one of [smallest|lowest] {word}.
        Can you [find|see] which {thing} has the least {word} when the {key} is {n}?
        Only {things} with {key} {n} [count|matter]. Which one is lowest in {word}?
        When you look only at {key} {n}, which {thing} [comes|is] lowest in {word}?
        If the {key} is {n}, which {thing} has the [lowest|least|smallest] {word}?
        Take the {things} that have {key} {n}. [Lowest|Smallest|Least] {word}?
        {key} {n}: which {thing} there has the [least|lowest|smallest] {word}?
        Which {thing} with a {key} of {n} has the [least|lowest] {word}?
        [Lowest|Smallest] {word} for {key} {n}: which {thing}?
        Filter by {key} {n}. [Output|Bring me] the {thing} with minimal {word}.
        Ignore all but {key} {n}: minimum of {word}?
        Several {things} have {n} for {key}; who wins with the minimum of {word}?
        Reject every {thing} unless its {key} amounts to {n}. Of the group that remains, minimise {word}.
        My condition: {key} equals {n}. Who has [minimal|bottom] {word}?
        {key} reads {n}: discard any other. [Hand|Report] me who has the lowest {word}.
        Restrict the {things}, {key} being {n}. Who is at the bottom in {word}?
        Subject to {n} as {key}, who ought to be the {thing} of least {word}?""",
    "copy": """
        [Give {b}|{b} gets|{b} needs] the same {word} as {a}. / Read the {word} of {a}, then [set|change] {b} to it.
        First get the {word} of {a}. [Then|After that|Next,] write the same into {b}.
        No matter what the {word} of {a} is, {b} [must|should] have it, too. / {word}: [from|as it is,] {a} to {b}.
        The {word} of {b} [has to be changed|is wrong]. Put in that of {a}.
        Look up the {word} of {a} and [write it down|enter it] for {b}.
        The {word} of {a} [is to be copied|should be written] to {b}. / I [want|need] {b} to have the {word} of {a}.
        Make the {word} of {b} equal to [the {word}|that] of {a}. / [Let {b} have|{b} takes] what {a} has as {word}.
        Change the {word} of {b}: [it must|let it] be as in {a}. / Could you [put|write] the {word} of {a} into {b}?
        {a} has the right {word}. [Give it to|Put it into] {b}. / We [want|need] the same {word} in {b} as in {a}.
        {b} [should|must|has to] have the {word} that {a} has. / Both should have one {word}: {b} takes it from {a}.
        Set the {word} of {b} to [that|the one] of {a}. / [Copy|Carry] the {word} [from|of] {a} to {b}.
        [Replace|Overwrite] what {b} has as {word} with the {word} of {a}.
        [Duplicate|Mirror|Replicate] the {word} of {a} in {b}.
        [Transfer|Bring] the {word} of {a} over to {b}. / Source of the {word} is {a}, its target is {b}.
        Align the {word} of {b}, as {a} has it. / Ensure that {b} has the {word} which {a} has.
        In the field {word}, {b} must match {a}. / Regarding {word}, bring {b} to what {a} shows.
        The {word} [belongs into {b}|is onto {b} to go], the origin is {a}. / Use whatever {word} {a} has for {b}.""",
    "create": """
        Add a new {thing} {a} with {word} {n}, then [read its {word} back|tell me its {word}].
        I [want|need] a new {thing}, {a}, with a {word} of {n}. What {word} does it have afterwards?
        Create the {thing} {a}, {word} {n}. [Afterwards|Then|When it is there,] tell me its {word}.
        Our {things} lack {a}. Add it with a {word} of {n} and [tell|show] me what {word} you read.
        We got {a}, a {thing} with {word} {n}. Add it. What {word} do you [find|see|read] then?
        Let there be a {thing} {a} with {n} as {word}; [see|look] whether the {word} is right.
        There is a new {thing}: {a}, {word} {n}. Enter it and [look it up|read its {word}].
        Could you [add|enter] {a}, {word} {n}, and then tell me the {word} that you read?
        Write down {a} with {n} as its {word}, then look whether it is [there|stored].
        Make a {thing} named {a} whose {word} is {n}; then [verify|check|read] the {word}.
        Store the {word} {n} under the new name {a} and [look it up|read it] again.
        New {thing} {a}: {word} {n}. [Store|Save|Add] it, then read the {word}.
        After you have [added|entered] {a} with {word} {n}, [look up|read] its {word}.
        Enter {a} with a {word} of {n} and [check|see] which {word} it has.
        Put {a} in with {word} {n}, and say [what|which] {word} is stored.
        {a}, {word} {n}: add it, then [look at|check|read] the {word}.
        [Register|Enter|Add] {a} ({word} {n}) and confirm its {word}.
        Insert a {thing} [called|named] {a} at {word} {n} and quote what {word} [results|it shows].
        Include {a}, {word} being {n}. Verification: [recite|repeat] the {word} you read.
        A record of {a} is missing: {word} {n}. [Introduce|Open] it, then display its {word}.
        Have a {thing} called {a}, valued at {n} for {word}. [Prove|Document] it: which {word}?
        Fill in {a} as a new {thing}, {n} being the {word}, and reveal its {word}.
        [Introduce|Include] {a} having {word} {n}; demonstrate the {word} by reading.
        Double-check {a} after you insert it with {n} as {word}.""",
}
_HELD_OUT = {
    "ask": """
        How does {list} stand [with regard to|in terms of] {word}?
        [Someone|A colleague] needs {list} [with the {word} beside it|complete with {word}].
        [Quote|Fetch|Dig up] {word} figures, namely those kept under {list}.
        The {word}, for {list}, [if it can be seen|provided you see any]?
        [I forgot|Nobody remembers] the {word} that belongs to {list}.
        Concerning {list}, [enlighten me|fill me in] as to {word}.
        Would you know what {word} {list} [goes by|comes with]?""",
    "trace": """
        Where do I [get|arrive] if I leave {a} by its {word} and never [cease|pause] doing so?
        The {word} of {a}, then the {word} of what you got, [to the very bottom|down and down to the bottom].
        [Exhaust|Run through] all {word} hops out of {a}; whom do they [finally|ultimately] lead to?
        Hop from {a} to the {word}, hop again, [until|till] you cannot. On which {thing} are you?
        Walk down every {word} behind {a}; [hand over|quote] whichever sits at the far tip.
        At which {thing} does the line of {word} that opens with {a} [run out|break off]?
        Whom does {a} ultimately lead to, hopping by {word}?""",
    "branch": """
        Should {a} [turn out to have|show] a {word} beneath {limit}, {then}, failing which {other}.
        What to do hangs on {a}. With a {word} not reaching {limit}, {then}. [Having|Given] {limit} or above, {other}.
        Consult {a}: {limit} not attained by {word} makes you {then}; [attained|once attained], {other}.
        [Measure|Hold] {word} at {a} against {limit}. Short of it, {then}; equal or beyond, {other}.
        Provided {a} shows a {word} under {limit}: {then}. [Contrary|Opposite] result: {other}.
        [My rule|Our policy] for {a}: {word} < {limit} leads to {then}, all else to {other}.
        {other}, unless {a} [falls|drops|sinks] below {limit} in {word}, for then {then}.""",
    "least": """
        [Someone|One candidate] must have the minimum of {word} here, who? {list}
        Nobody in {list} undercuts a certain {thing} in {word}. [Identify it|Who might that be]?
        Undercutting everybody else in {word}: which member of {list} [does so|manages that]?
        [Between|Amid] {list}, the winner is whoever shows the lowest {word}.
        Minimum {word}, please, [candidates are|to be taken from] {list}.
        I would like whichever [of|from] {list} scores least in {word}.
        [Sort|Rank] {list} by {word}, I only care for the bottom one.
        Order by {word} ascending, {list}, and quote the head.""",
    "orders": """
        [Go ahead and|Hurry up and|Kindly|Be so good as to] {verb} {list}. / May I trouble you to {verb} {list}?
        Nothing [pleases|helps] me more than seeing you {verb} {list}. / See to it that you {verb} {list}.
        You are [asked|expected|requested|supposed] to {verb} {list}.
        [What I am after|All I ask]: {verb} {list}, nothing else.
        [Somebody|One of us] ought to {verb} {list}, so do it.""",
    "search": """
        Restrict yourself to {key} {n}; whose {word} is the [minimum|bottom]?
        Where {key} is {n} there [should|ought to] be several {things}; the smallest {word} wins.
        {key} equals {n}. Under that condition, [hand|bring] me the {thing} of minimal {word}.
        [Discard|Ignore|Reject] {things} unless {key} [reads|amounts to] {n}; who remains with minimal {word}?
        In the group of {things} [for which|where] {key} says {n}, who is bottom by {word}?
        Filter on {key} = {n} and [report|output] the {thing} having the lowest {word}.
        Minimise {word} subject to {key} = {n}.""",
    "copy": """
        Whatever {word} you see at {a} [belongs|goes] at {b} as well. / [I wish|Ensure] {b} matched {a} in {word}.
        Bring {b} into line with {a} [as far as {word} goes|regarding {word}].
        [Overwrite|Replace] the {word} of {b} by using what stands under {a}.
        [Mirror|Duplicate|Replicate] {word} out of {a} onto {b}. / Transfer {word}: [source|origin] {a}, target {b}.
        Align {b} [to|with] {a}, field {word}.""",
    "create": """
        Please open a record called {a}, fill {word} with {n}, and [quote|repeat|recite] the {word} back to me.
        {a} is missing from our {things}; insert it ({word}: {n}) and [reveal|display] the {word} on file.
        Have {a} included, its {word} being {n}, and [double-check|make certain of] that {word}.
        Include one more {thing}, {a}, valued {n} in {word}; [report|output] the {word}.
        After inserting {a} at {word} {n}, [prove|document|demonstrate] it by reading the {word}.
        Introduce {a} [having|owning] {n} for {word}; verification of {word} follows.
        Insert {thing} {a}, {word} being {n}. Which {word} [results|turns up]?""",
}
FRAMES = {pattern: expanded(grammar) for pattern, grammar in _TRAINED.items()}
HELD_OUT_FRAMES = {pattern: expanded(grammar) for pattern, grammar in _HELD_OUT.items()}
